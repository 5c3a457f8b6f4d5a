// Points over the images of machines that are off. A point creates nothing on the
// disks; it consists of QEMU's lock on every image, held by a storage daemon, of the promise
// that the files do not change, checked at the end, and of a machine that may have to be started again.
import { wallMs } from '@blockferry/core'
import { BackupError, type Reason } from '@blockferry/errors'
import type { BeginPoint, Point, PointDisk } from '../driver.ts'
import { QmpRefusal } from '../qmp.ts'
import type { StorageDaemon } from '../storage_daemon.ts'
import { checkImage, openFailure } from './image_open.ts'
import { assertNoWriter, assertUnchanged, type ImageState, rememberState } from './image_state.ts'
import { type ImageDisk, type ImageVm, toVm } from './image_vm.ts'
import type { PointFile } from './point_file.ts'
import { PointKeeper, type PointKeeperOptions } from './point_keeper.ts'
import { runHook } from './run_hook.ts'

export class ImagePoints {
  readonly keeper: PointKeeper

  constructor(options: PointKeeperOptions) {
    this.keeper = new PointKeeper(options, {
      beforeClose: async () => {},
      afterClose: async ({ start, vmName }) => {
        if (start) await runHook('start', vmName, start, new AbortController().signal)
      },
    })
  }

  /** Idempotent by point id. `find` is asked again after the stop hook: sizes may have changed. */
  async begin(
    request: BeginPoint,
    find: () => Promise<ImageVm>,
    signal: AbortSignal,
  ): Promise<Point> {
    const vm = await find()
    assertReadable(vm)
    const { identity: vmIdentity, name: vmName } = vm
    const about = { pointId: request.pointId, vmIdentity, vmName, start: null, bitmaps: null }
    return await this.keeper.begin(about, async (file) => {
      if (vm.start) {
        // Before the stop hook runs, so that the machine is started again whatever happens then.
        file.start = vm.start
        await this.keeper.save(file)
      }
      if (!vm.stop) return await this.#open(file, vm, signal)
      await runHook('stop', vm.name, vm.stop, signal)
      const stopped = await find()
      assertReadable(stopped)
      return await this.#open(file, stopped, signal)
    })
  }

  async #open(file: PointFile, vm: ImageVm, signal: AbortSignal): Promise<Point> {
    // Order: remember, lock, look for writers. Whoever writes without a lock either has the file
    // open now, or opens it later, and then its write changes what was remembered.
    file.states = await rememberStates(vm, signal)
    const daemon = await this.keeper.startDaemon(file, signal)
    const disks: PointDisk[] = []
    for (const [index, disk] of vm.disks.entries()) {
      signal.throwIfAborted()
      disks.push(await openDisk(daemon, disk, index))
    }
    await assertNoWriter(file.states)
    for (const state of file.states) await assertUnchanged(state)
    assertSizes(vm, file.states)
    await checkImages(vm, signal)
    return offPoint(file.pointId, vm, disks)
  }
}

/** A point of a machine that is off, as of now. */
export const offPoint = (pointId: string, vm: ImageVm, disks: PointDisk[]): Point => ({
  pointId,
  vm: toVm(vm),
  disks,
  consistency: 'off',
  timeMs: wallMs(),
  frozenMs: 0,
  pausedMs: 0,
  decisions: [
    {
      decision: 'MACHINE_OFF',
      message: `VM ${vm.name}: its images are read as they are and locked meanwhile; it cannot be started until the backup has read them`,
    },
  ],
})

/** Errors: IMAGE_DAMAGED. */
export async function checkImages(vm: ImageVm, signal: AbortSignal): Promise<void> {
  for (const disk of vm.disks) if (disk.format === 'qcow2') await checkImage(disk, signal)
}

/** The states of all files of all disks, backing files included, each once. */
export async function rememberStates(vm: ImageVm, signal: AbortSignal): Promise<ImageState[]> {
  const states: ImageState[] = []
  const paths = new Set(vm.disks.flatMap((disk) => [disk.path, ...disk.backingPaths]))
  for (const path of paths) states.push(await rememberState(path, signal))
  return states
}

async function openDisk(daemon: StorageDaemon, disk: ImageDisk, index: number): Promise<PointDisk> {
  const nodeName = `d${index}`
  const { id, sizeBytes, path } = disk
  const decisions = notesOf(disk)
  const common = { id, sizeBytes, changedContext: null, baseBackupId: null, decisions }
  try {
    if (disk.format === 'raw') {
      await daemon.lockFile(nodeName, path)
      return { ...common, address: { kind: 'raw', path } }
    }
    await daemon.openImage({ nodeName, path, format: disk.format, writable: false })
    const uri = await daemon.exportNbd(nodeName, nodeName)
    return { ...common, address: { kind: 'nbd', uri } }
  } catch (thrown) {
    throw thrown instanceof QmpRefusal ? openFailure(disk, thrown) : thrown
  }
}

function notesOf(disk: ImageDisk): PointDisk['decisions'] {
  const below = disk.backingPaths.at(-1)
  if (!below) return []
  const count = disk.backingPaths.length
  const message = `disk ${disk.id}: read through ${count} backing file(s) down to ${below}`
  return [{ decision: 'MACHINE_OFF', message }]
}

/** A raw image that grew since it was looked at: its disk would be read short. */
export function assertSizes(vm: ImageVm, states: ImageState[]): void {
  for (const disk of vm.disks) {
    const state = states.find(({ path }) => path === disk.path)
    if (disk.format !== 'raw' || state?.sizeBytes === disk.sizeBytes) continue
    throw new BackupError(
      'IMAGE_CHANGED',
      `read image ${disk.path}: its size changed while the point began; try again`,
      { path: disk.path },
    )
  }
}

/** Errors: the VM's refusal, VM_WITHOUT_DISKS. */
export function assertReadable(vm: ImageVm): void {
  if (vm.refused) {
    throw new BackupError(vm.refused.reason as Reason, vm.refused.message, { vm: vm.name })
  }
  if (vm.disks.length > 0) return
  const seen = vm.uncovered.map((disk) => disk.message).join('; ')
  throw new BackupError(
    'VM_WITHOUT_DISKS',
    `back up VM ${vm.name}: it has no disk that can be read${seen ? `: ${seen}` : ''}`,
    { vm: vm.name },
  )
}
