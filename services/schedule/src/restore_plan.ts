import { lstat } from 'node:fs/promises'
import { join } from 'node:path'
import { argumentInvalid, BackupError } from '@blockferry/errors'
import {
  imageFormatName,
  imageFormatOf,
  installationVm,
  type move,
  type backup as proto,
  type schedule,
  type snapshot,
} from '@blockferry/proto'
import { imageName } from './image_name.ts'
import { refuseUnlessOff } from './restore.ts'

/**
 * Where each disk of a restore goes. `vm` is the VM whose own images are replaced, or null.
 * Errors: DISK_NOT_FOUND, TARGET_EXISTS, TARGET_IN_USE, DISK_FORMAT_UNSUPPORTED.
 */
export async function planRestore(
  runId: string,
  request: schedule.StartRestoreRequest,
  repositoryFolder: string,
  backup: proto.Backup,
  vm: snapshot.Vm | null,
): Promise<move.StartRestoreRequest> {
  const disks = chooseDisks(request.disks, backup)
  const whole = disks.length === backup.disks.length
  const script = vm === null && whole && backup.driver === 'qemu'
  const startScriptPath = script ? join(request.targetFolder, 'start.sh') : ''
  const planned = vm
    ? overOwnImages(disks, vm, backup)
    : intoFolder(disks, request.targetFolder, request.format)
  if (!vm) {
    const paths = planned.map(({ targetPath }) => targetPath)
    await refuseExisting(script ? [...paths, startScriptPath] : paths)
  }
  return {
    sessionId: runId,
    folder: repositoryFolder,
    backupId: backup.name.split('/').at(-1) ?? '',
    disks: planned,
    startScriptPath,
    differential: request.differential,
  }
}

function chooseDisks(asked: string[], backup: proto.Backup): string[] {
  if (backup.vmIdentity.startsWith(installationVm)) {
    const what =
      'a backup with disks; of what an installation saved, `blockferry recover` makes use'
    throw argumentInvalid('backup', backup.name, `give ${what}`)
  }
  const stored = backup.disks.map(({ disk }) => disk)
  const unknown = asked.find((disk) => !stored.includes(disk))
  if (unknown === undefined) return asked.length > 0 ? asked : stored
  throw new BackupError(
    'DISK_NOT_FOUND',
    `restore disk ${unknown}: backup ${backup.name} has only ${stored.join(', ')}; name one of these`,
    { disk: unknown, backup: backup.name },
  )
}

function intoFolder(disks: string[], folder: string, asked: move.ImageFormat): move.RestoreDisk[] {
  const name = imageFormatName(asked) ?? 'qcow2'
  const format = imageFormatOf(name) ?? asked
  const planned = disks.map((disk) => ({
    disk,
    targetPath: join(folder, imageName(disk, name)),
    format,
    replace: false,
  }))
  const paths = planned.map(({ targetPath }) => targetPath.toLowerCase())
  const twice = planned.find((_, index) => paths.indexOf(paths[index] ?? '') !== index)
  if (!twice) return planned
  throw argumentInvalid(
    'disks',
    twice.disk,
    `its image would be ${twice.targetPath} as that of another disk; restore the two one by one into two folders`,
  )
}

function overOwnImages(disks: string[], vm: snapshot.Vm, backup: proto.Backup): move.RestoreDisk[] {
  refuseUnlessOff(vm, backup.vmDisplayName)
  return disks.map((disk) => {
    const own = vm.disks.find((each) => each.disk === disk)
    if (!own) {
      throw new BackupError(
        'DISK_NOT_FOUND',
        `restore disk ${disk} over its image: VM ${vm.displayName} has no such disk now; restore it to a folder`,
        { disk, vm: vm.identity },
      )
    }
    return { disk, targetPath: own.location, format: formatOf(own), replace: true }
  })
}

function formatOf({ disk, format }: snapshot.Disk): move.ImageFormat {
  const own = imageFormatOf(format)
  if (own !== null) return own
  throw new BackupError(
    'DISK_FORMAT_UNSUPPORTED',
    `restore disk ${disk} over its image: images of format ${format} cannot be written; restore it to a folder as raw or qcow2`,
    { disk, format },
  )
}

// The mover refuses, too; asking here says so before the run begins.
async function refuseExisting(paths: string[]): Promise<void> {
  for (const path of paths) {
    const there = await lstat(path).catch(() => null)
    if (!there) continue
    throw new BackupError(
      'TARGET_EXISTS',
      `restore to ${path}: it exists already; choose another folder, or move it away`,
      { path },
    )
  }
}
