// What happens to a machine while its point is read. The point is held before its first block
// is read, or after the last one, by a gate between the services.
import { execFile } from 'node:child_process'
import { rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { backup, schedule, snapshot } from '@blockferry/proto'
import { type Case, type Ground, isRoot, none, type Refusal, refusalOfRun } from './ground.ts'
import { check } from './row.ts'
import { withWatchMonitor } from './trace.ts'

const execute = promisify(execFile)
/** Before the first block is read, and after the last one. */
const moments = ['startBackup', 'confirmPoint']
const bootMsMax = 90_000

/** A backup with something happening in the middle; the name of its run. */
async function during(
  { lab, hold, random }: Ground,
  happening: () => Promise<unknown>,
): Promise<string> {
  const start = () => lab.startBackup(backup.Level.INCREMENTAL)
  return await hold.at(random.pick(moments), start, happening)
}

async function reset(ground: Ground): Promise<Refusal> {
  const { lab } = ground
  const name = await during(ground, () =>
    withWatchMonitor(lab, async (qmp) => {
      await qmp.execute('set-action', { reboot: 'reset' })
      await qmp.execute('system_reset')
    }),
  )
  const made = await lab.stand.runEnd(name)
  check(made.state === schedule.Run_State.SUCCEEDED, `${made.error?.message}`)
  const references = lab.references.get(made.pointId) ?? []
  check(references.length === 2, `${references.length} disks were read for comparison`)
  const different = await lab.differences(made.backup, references)
  check(different.length === 0, `${different} restored otherwise than nbdcopy read it`)
  // The guest's second boot: a script that answers is its proof.
  await lab.guest.sh('sync', bootMsMax)
  return none
}

async function poweredOff(ground: Ground): Promise<Refusal> {
  const { lab } = ground
  try {
    const name = await during(ground, async () => {
      await withWatchMonitor(lab, (qmp) => qmp.execute('quit'))
      await lab.guest.exited
    })
    return await refusalOfRun(lab, name)
  } finally {
    await lab.bootAgain()
  }
}

/** The backup after it leaves the disk out; then it is plugged in again. */
async function unplugged(ground: Ground): Promise<Refusal> {
  const { lab } = ground
  const name = await during(ground, () =>
    withWatchMonitor(lab, async (qmp) => {
      await qmp.execute('device_del', { id: 'vdb' })
      await qmp.waitFor('DEVICE_DELETED', ({ device }) => device === 'vdb', 20_000)
    }),
  )
  const refusal = await refusalOfRun(lab, name)
  const without = await lab.backUp(backup.Level.INCREMENTAL)
  check(without.disks.length === 1, `${without.disks.length} disks were backed up`)
  await withWatchMonitor(lab, (qmp) =>
    qmp.execute('device_add', {
      driver: 'virtio-blk-pci',
      ...{ id: 'vdb', drive: 'disk1', serial: 'disk1', bus: 'port1' },
    }),
  )
  return refusal
}

/** The host is described anew with a fleece folder on a small file system. */
async function withFleece<T>(
  { lab }: Ground,
  size: string,
  work: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = join(lab.folder, 'small')
  const monitorFolder = join(lab.folder, 'vms')
  const describeHost = async (fleeceFolder: string) => {
    await lab.stand.snapshot.deleteHost({ name: 'hosts/here' })
    await lab.stand.snapshot.createHost(
      snapshot.CreateHostRequest.create({
        hostId: 'here',
        host: {
          platform: { $case: 'qemu', value: { monitorFolder, monitorSockets: [], fleeceFolder } },
        },
      }),
    )
  }
  await execute('mkdir', [folder])
  await execute('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'blockferry-test', folder])
  try {
    await describeHost(folder)
    return await work(folder)
  } finally {
    await describeHost('')
    await execute('umount', ['--lazy', folder])
    await rm(folder, { recursive: true })
  }
}

async function fleeceTooSmall(ground: Ground): Promise<Refusal | null> {
  if (!isRoot) return null
  const { lab } = ground
  return await withFleece(ground, '8m', async () =>
    refusalOfRun(lab, await lab.startBackup(backup.Level.INCREMENTAL)),
  )
}

/** A neighbour takes all the room that the store had, and the guest overwrites. */
async function fleeceFills(ground: Ground): Promise<Refusal | null> {
  if (!isRoot) return null
  const { lab } = ground
  return await withFleece(ground, '80m', async (folder) => {
    const neighbour = join(folder, 'neighbour')
    const name = await during(ground, async () => {
      await execute('dd', ['if=/dev/zero', `of=${neighbour}`, 'bs=64k']).catch(() => {})
      const { bavail } = await statfs(folder)
      check(bavail === 0, `${bavail} blocks are free beside the neighbour`)
      await lab.guest.sh('dd if=/dev/zero of=/data/0/old bs=64k count=64 conv=notrunc && sync')
    })
    const refusal = await refusalOfRun(lab, name)
    await rm(neighbour)
    return refusal
  })
}

export const badMoments: Case[] = [
  { name: 'guest reset in mid-backup', expects: null, work: reset },
  {
    name: 'powered off in mid-backup',
    expects: { reason: 'VM_POWERED_OFF', says: /web01 ended.*the next run takes a new one/ },
    reboots: true,
    work: poweredOff,
  },
  {
    name: 'disk hot-unplugged in mid-backup',
    expects: { reason: 'DISK_REMOVED', says: /disk1 of VM web01.*the next run leaves it out/ },
    makesBackup: true,
    work: unplugged,
  },
  {
    name: 'fleece store without room',
    expects: { reason: 'FLEECE_FULL', says: /\/small.*free space or name another folder/ },
    work: fleeceTooSmall,
  },
  {
    name: 'fleece store fills in mid-backup',
    expects: { reason: 'POINT_BROKEN', says: /fleece store filled up.*give it more room/ },
    work: fleeceFills,
  },
]
