// Points over the images of machines that are off. A point creates nothing on the
// disks; it consists of QEMU's lock on every image, held by a storage daemon, of the promise
// that the files do not change, checked at the end, and of a machine that may have to be started again.
import { isDeepStrictEqual } from 'node:util'
import { wallMs } from '@blockferry/core'
import { BackupError, type Reason } from '@blockferry/errors'
import type { BeginPoint, Point, PointDisk, Vm } from '../driver.ts'
import { TableDamaged } from '../image/block_table.ts'
import { readDataExtents } from '../image/data_extents.ts'
import { filesOf } from '../image/image_layers.ts'
import { chooseBases } from '../qemu/bitmaps.ts'
import { QmpRefusal } from '../qmp.ts'
import type { StorageDaemon } from '../storage_daemon.ts'
import { checkLayer, explainRefusal, tablesDamaged } from './image_check.ts'
import {
  assertNoWriter,
  assertSameFile,
  assertUnchanged,
  type ImageState,
  notWhatItWas,
  rememberState,
} from './image_state.ts'
import { findImage, type ImageDisk, type ImageFinding, type ImageVm, toVm } from './image_vm.ts'
import type { PointFile } from './point_file.ts'
import { PointKeeper, type PointKeeperOptions } from './point_keeper.ts'
import { runHook } from './run_hook.ts'

type DiskFinding = Extract<ImageFinding, { kind: 'disk' }>

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
      if (!vm.stop) return await this.#open(file, vm, request, signal)
      await runHook('stop', vm.name, vm.stop, signal)
      const stopped = await find()
      assertReadable(stopped)
      return await this.#open(file, stopped, request, signal)
    })
  }

  async #open(
    file: PointFile,
    vm: ImageVm,
    request: BeginPoint,
    signal: AbortSignal,
  ): Promise<Point> {
    // Order: remember, lock, look for writers. Whoever writes without a lock either has the file
    // open now, or opens it later, and then its write changes what was remembered.
    file.states = await rememberStates(vm, signal)
    const daemon = await this.keeper.startDaemon(file, signal)
    const disks: PointDisk[] = []
    for (const [index, disk] of vm.disks.entries()) {
      signal.throwIfAborted()
      disks.push(await openDisk(daemon, disk, index, changeNotes(disk, request), signal))
    }
    await assertNoWriter(file.states)
    await assertFoundAgain(vm, file.states)
    for (const state of file.states) await assertUnchanged(state)
    assertSizes(vm, file.states)
    await checkImages(vm, signal)
    return offPoint(request, vm, disks)
  }
}

/** A point of a machine that is off, as of now. */
export function offPoint(request: BeginPoint, vm: ImageVm, disks: PointDisk[]): Point {
  const machineOff = `VM ${vm.name}: its images are read as they are and locked meanwhile; it cannot be started until the backup has read them`
  return {
    ...{ pointId: request.pointId, vm: toVm(vm), disks, consistency: 'off', timeMs: wallMs() },
    ...{ frozenMs: 0, pausedMs: 0 },
    decisions: [
      { decision: 'MACHINE_OFF', message: machineOff },
      ...vm.uncovered.map(({ message }) => ({ decision: 'DISK_NOT_COVERED', message })),
      ...disksGone(request, vm),
    ],
  }
}

function disksGone({ bases }: BeginPoint, vm: ImageVm): Point['decisions'] {
  const before = bases[0]?.disks ?? []
  const here = new Set(vm.disks.map(({ id }) => id))
  return before
    .filter(({ id }) => !here.has(id))
    .map(({ id }) => ({
      decision: 'DISK_GONE',
      message: `VM ${vm.name} no longer has disk ${id}, which the last backup holds`,
    }))
}

/**
 * Looks again at an image that is open by now. It was opened by what an earlier look had found: an
 * overlay that took its place since would be read without what lies below it, as zeroes. Errors:
 * IMAGE_CHANGED.
 */
export async function findAgain(disk: ImageDisk): Promise<DiskFinding> {
  const { id, path, statedFormat, layers } = disk
  const found = await findImage({ path, id, format: statedFormat }, null)
  if (found.kind === 'disk' && isDeepStrictEqual(found.disk.layers, layers)) return found
  throw notWhatItWas(path, 'its format, its size or the files it consists of changed')
}

/**
 * What was found out about the images holds of the files that are open. REQUIRES: they are locked,
 * and `states` is older than that. Errors: IMAGE_CHANGED, RESTORE_INCOMPLETE.
 */
export async function assertFoundAgain(vm: ImageVm, states: ImageState[]): Promise<void> {
  for (const disk of vm.disks) {
    const { refused } = await findAgain(disk)
    if (refused) throw refusal(vm, refused)
  }
  // After the look: it must have been at the files that were opened.
  for (const state of states) await assertSameFile(state)
}

/** Errors: IMAGE_DAMAGED. */
export async function checkImages(vm: ImageVm, signal: AbortSignal): Promise<void> {
  for (const { id, layers } of vm.disks) {
    for (const layer of layers) await checkLayer(id, layer, signal)
  }
}

/** The states of all files of all disks, each once. */
export async function rememberStates(
  { disks }: Pick<ImageVm, 'disks'>,
  signal: AbortSignal,
): Promise<ImageState[]> {
  const states: ImageState[] = []
  const paths = new Set(disks.flatMap(({ layers }) => filesOf(layers)))
  for (const path of paths) states.push(await rememberState(path, signal))
  return states
}

async function openDisk(
  daemon: StorageDaemon,
  disk: ImageDisk,
  index: number,
  changes: PointDisk['decisions'],
  signal: AbortSignal,
): Promise<PointDisk> {
  const nodeName = `d${index}`
  const { id, sizeBytes, path } = disk
  const decisions = [...changes, ...backingNotes(disk)]
  const nothing = { changedContext: null, baseBackupId: null, dataExtents: null }
  const common = { id, sizeBytes, ...nothing, decisions }
  try {
    if (disk.format === 'raw') {
      await daemon.lockFile(nodeName, path, disk.layers[0]?.isDevice === true)
      return { ...common, address: { kind: 'raw', path } }
    }
    const seen = await daemon.openImage({ nodeName, layers: disk.layers, writable: false })
    if (seen !== sizeBytes) throw sizeDiffers(disk, seen)
    const dataExtents = await readDataExtents(disk.layers, signal)
    const uri = await daemon.exportNbd(nodeName, nodeName)
    return { ...common, dataExtents, address: { kind: 'nbd', uri } }
  } catch (thrown) {
    if (thrown instanceof TableDamaged) throw tablesDamaged(disk, thrown)
    throw thrown instanceof QmpRefusal ? await explainRefusal(disk, thrown, signal) : thrown
  }
}

/** A folder keeps no record of changes, so a base only tells which disks are new or resized. */
function changeNotes({ id, sizeBytes }: ImageDisk, request: BeginPoint): PointDisk['decisions'] {
  if (request.bases.length === 0) return []
  const disk = { id, sizeBytes, node: '', storesBitmaps: false, bitmaps: [] }
  return chooseBases([disk], request.bases, request.repositoryId).flatMap((one) => one.decisions)
}

function backingNotes({ id, layers }: ImageDisk): PointDisk['decisions'] {
  const below = layers.length > 1 ? layers.at(-1) : undefined
  if (!below) return []
  const message = `disk ${id}: read through ${layers.length - 1} backing file(s) down to ${below.path}`
  return [{ decision: 'MACHINE_OFF', message }]
}

/** What the header says and what QEMU would read must not be two things. */
export function sizeDiffers({ id, path, sizeBytes }: ImageDisk, seen: number): BackupError {
  const metadata = { path, disk: id, size: String(sizeBytes), seen: String(seen) }
  const message = `open image ${path} of disk ${id}: its header says ${sizeBytes} bytes, QEMU reads ${seen}; convert it with the program that made it`
  return new BackupError('IMAGE_DAMAGED', message, metadata)
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
  if (vm.refused) throw refusal(vm, vm.refused)
  if (vm.disks.length > 0) return
  const seen = vm.uncovered.map((disk) => disk.message).join('; ')
  throw new BackupError(
    'VM_WITHOUT_DISKS',
    `back up VM ${vm.name}: it has no disk that can be read${seen ? `: ${seen}` : ''}`,
    { vm: vm.name },
  )
}

const refusal = ({ name }: ImageVm, { reason, message }: NonNullable<Vm['refused']>): BackupError =>
  new BackupError(reason as Reason, message, { vm: name })
