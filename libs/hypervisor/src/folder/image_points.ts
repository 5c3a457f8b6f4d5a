// Points over the images of machines that are off. A point creates nothing on the
// disks; it consists of QEMU's lock on every image, held by a storage daemon, of the promise
// that the files do not change, checked at the end, and of a machine that may have to be started again.
import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { promisify } from 'node:util'
import { wallMs } from '@blockferry/core'
import { BackupError, type Reason } from '@blockferry/errors'
import type { BeginPoint, FoundPoint, Point, PointDisk } from '../driver.ts'
import { QmpRefusal } from '../qmp.ts'
import {
  daemonFolder,
  endStorageDaemon,
  findStorageDaemons,
  StorageDaemon,
} from '../storage_daemon.ts'
import {
  assertNoWriter,
  assertUnchanged,
  type ImageState,
  imageInUse,
  rememberState,
} from './image_state.ts'
import { type ImageDisk, type ImageVm, toVm } from './image_vm.ts'
import {
  claimPointFile,
  listPointFiles,
  type PointFile,
  removePointFile,
  replacePointFile,
} from './point_file.ts'
import { runHook } from './run_hook.ts'

export interface ImagePointsOptions {
  /** For sockets and point files; short, since a unix socket's path ends at 107 bytes. */
  runFolder: string
  /** Installation, 6 hex digits. */
  tag: string
}

const checkMs = 10 * 60_000
// qemu-img prints a line per wrong cluster; only the last ones are shown.
const checkOutputBytes = 64 * 2 ** 20

export class ImagePoints implements AsyncDisposable {
  #options: ImagePointsOptions
  #daemons = new Map<string, StorageDaemon>()
  #releases = new Map<string, Promise<void>>()

  constructor(options: ImagePointsOptions) {
    this.#options = options
  }

  /** Idempotent by point id. `find` is asked again after the stop hook: sizes may have changed. */
  async begin(
    request: BeginPoint,
    find: () => Promise<ImageVm>,
    signal: AbortSignal,
  ): Promise<Point> {
    const vm = await find()
    assertReadable(vm)
    const { tag, runFolder } = this.#options
    const { pointId } = request
    const file: PointFile = {
      pointId,
      tag,
      vmIdentity: vm.identity,
      vmName: vm.name,
      start: null,
      states: [],
      point: null,
    }
    const holder = await claimPointFile(runFolder, file)
    if (holder) {
      const same = holder.pointId === pointId && holder.tag === tag && holder.point !== null
      if (!same) throw vmBusy(vm, holder)
      if (this.#daemons.get(pointId)?.alive) return holder.point as Point
      throw pointLost(pointId, 'its storage daemon ended')
    }
    try {
      if (vm.stop || vm.start) {
        file.start = vm.start
        await replacePointFile(runFolder, file)
      }
      if (vm.stop) await runHook('stop', vm.name, vm.stop, signal)
      const stopped = vm.stop ? await find() : vm
      assertReadable(stopped)
      return await this.#open(file, stopped, signal)
    } catch (thrown) {
      // When the machine cannot be started again its file stays, and the reaper tries and reports.
      await this.#undo(file).catch(() => {})
      throw thrown
    }
  }

  async confirm(pointId: string): Promise<void> {
    const file = await this.#find(pointId)
    if (!file?.point) throw pointLost(pointId, 'it was released')
    for (const state of file.states) await assertUnchanged(state)
    const known = this.#daemons.get(pointId)
    const alive = known ? known.alive : (await this.#daemonsOf(pointId)).length > 0
    if (!alive) throw pointLost(pointId, 'the storage daemon that held its images ended')
  }

  /** Idempotent; callers that come at the same time share one release. */
  release(pointId: string): Promise<void> {
    const running = this.#releases.get(pointId)
    if (running) return running
    const release = this.#release(pointId).finally(() => this.#releases.delete(pointId))
    this.#releases.set(pointId, release)
    return release
  }

  async findPoints(): Promise<FoundPoint[]> {
    const files = await listPointFiles(this.#options.runFolder)
    return files.map((file) => ({
      pointId: file.pointId,
      vmIdentity: file.vmIdentity,
      vmName: file.vmName,
      ours: file.tag === this.#options.tag,
      owner: file.tag,
    }))
  }

  /** Ends the daemons of this object; the points stay listed until they are released. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#daemons.values()].map((daemon) => daemon.close()))
    this.#daemons.clear()
  }

  async #open(file: PointFile, vm: ImageVm, signal: AbortSignal): Promise<Point> {
    const { runFolder, tag } = this.#options
    // Order: remember, lock, look for writers. Whoever writes without a lock either has the file
    // open now, or opens it later, and then its write changes what was remembered.
    const states: ImageState[] = []
    const paths = new Set(vm.disks.flatMap((disk) => [disk.path, ...disk.backingPaths]))
    for (const path of paths) states.push(await rememberState(path, signal))
    const daemon = await StorageDaemon.start({ runFolder, tag, pointId: file.pointId, signal })
    this.#daemons.set(file.pointId, daemon)
    const disks: PointDisk[] = []
    for (const [index, disk] of vm.disks.entries()) {
      signal.throwIfAborted()
      disks.push(await openDisk(daemon, disk, index))
    }
    await assertNoWriter(states)
    for (const state of states) await assertUnchanged(state)
    assertSizes(vm, states)
    for (const disk of vm.disks) if (disk.format === 'qcow2') await checkImage(disk, signal)
    const point: Point = {
      pointId: file.pointId,
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
    }
    await replacePointFile(runFolder, { ...file, states, point })
    return point
  }

  async #release(pointId: string): Promise<void> {
    const file = await this.#find(pointId)
    // Another installation's point is not ours to end, whoever asks.
    if (file) await this.#undo(file)
    else await this.#endDaemons(pointId)
  }

  /** The images are let go before the machine starts, and the file goes last: it is the record of both. */
  async #undo(file: PointFile): Promise<void> {
    await this.#endDaemons(file.pointId)
    if (file.start) {
      await runHook('start', file.vmName, file.start, new AbortController().signal)
    }
    await removePointFile(this.#options.runFolder, file.vmIdentity)
  }

  async #endDaemons(pointId: string): Promise<void> {
    await this.#daemons.get(pointId)?.close()
    this.#daemons.delete(pointId)
    for (const daemon of await this.#daemonsOf(pointId)) await endStorageDaemon(daemon)
    const { runFolder, tag } = this.#options
    await rm(daemonFolder(runFolder, tag, pointId), { recursive: true, force: true })
  }

  async #find(pointId: string): Promise<PointFile | undefined> {
    const { runFolder, tag } = this.#options
    const files = await listPointFiles(runFolder)
    return files.find((file) => file.pointId === pointId && file.tag === tag)
  }

  async #daemonsOf(pointId: string) {
    const { runFolder, tag } = this.#options
    const found = await findStorageDaemons(runFolder)
    return found.filter((daemon) => daemon.pointId === pointId && daemon.tag === tag)
  }
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

/** What QEMU's words mean; it has one error class for all of them. */
export function openFailure(disk: { id: string; path: string }, refusal: QmpRefusal): BackupError {
  const cause = refusal.description
  if (/Failed to get .*lock/.test(cause))
    return imageInUse(disk.path, 'another process has locked it')
  const [reason, advice]: [Reason, string] = /No such file/.test(cause)
    ? ['IMAGE_MISSING', 'correct the path or bring it back']
    : /Permission denied/.test(cause)
      ? ['HOST_DENIED', 'let this user read it']
      : ['IMAGE_DAMAGED', 'restore it from a backup']
  return new BackupError(
    reason,
    `open image ${disk.path} of disk ${disk.id}: ${cause}; ${advice}`,
    { path: disk.path, disk: disk.id, cause },
  )
}

/** A cut-off qcow2 opens well and fails in the middle of the read; its tables say so beforehand. */
async function checkImage(disk: ImageDisk, signal: AbortSignal): Promise<void> {
  try {
    await promisify(execFile)('qemu-img', ['check', '-q', '-f', 'qcow2', disk.path], {
      signal,
      timeout: checkMs,
      maxBuffer: checkOutputBytes,
    })
  } catch (thrown) {
    signal.throwIfAborted()
    const failure = thrown as { code?: number | string; stderr?: string; message: string }
    // 3: clusters that nobody uses, harmless. 63: the format cannot be checked.
    if (failure.code === 3 || failure.code === 63) return
    const cause = failure.stderr?.trim().split('\n')[0] || failure.message
    throw new BackupError(
      'IMAGE_DAMAGED',
      `check image ${disk.path} of disk ${disk.id}: ${cause}; it is cut off or inconsistent, restore it from a backup`,
      { path: disk.path, disk: disk.id, cause },
    )
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
function assertSizes(vm: ImageVm, states: ImageState[]): void {
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

const vmBusy = (vm: ImageVm, holder: PointFile) =>
  new BackupError(
    'VM_BUSY',
    `begin a point of VM ${vm.name}: point ${holder.pointId} of installation ${holder.tag} holds it; wait until that backup ends`,
    { vm: vm.name, owner: holder.pointId, installation: holder.tag },
  )

const pointLost = (pointId: string, cause: string) =>
  new BackupError('POINT_LOST', `read point ${pointId}: ${cause}; the next run takes a new point`, {
    pointId,
    cause,
  })
