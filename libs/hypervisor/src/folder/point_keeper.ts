// The life of a point that a storage daemon of ours holds: the VM is claimed by its
// point file, the daemon shows the images, and whoever releases the point, this process or a
// later one, undoes both in the same order. What is special to a driver it hands in.
import { rm } from 'node:fs/promises'
import { BackupError } from '@blockferry/errors'
import type { FoundPoint, Point } from '../driver.ts'
import {
  daemonFolder,
  endStorageDaemon,
  findStorageDaemons,
  StorageDaemon,
} from '../storage_daemon.ts'
import { assertUnchanged } from './image_state.ts'
import {
  claimPointFile,
  listPointFiles,
  type PointFile,
  removePointFile,
  replacePointFile,
} from './point_file.ts'

export type Outcome = 'committed' | 'dropped'

export interface PointKeeperOptions {
  /** For sockets and point files; short, since a unix socket's path ends at 107 bytes. */
  runFolder: string
  /** Installation, 6 hex digits. */
  tag: string
}

export interface Undo {
  /** Before the images are let go; `daemon` is null when it ended with an earlier process. */
  beforeClose(file: PointFile, daemon: StorageDaemon | null, outcome: Outcome): Promise<void>
  /** When nothing of ours holds the images any more. */
  afterClose(file: PointFile): Promise<void>
}

export class PointKeeper implements AsyncDisposable {
  readonly #options: PointKeeperOptions
  readonly #undo: Undo
  readonly #daemons = new Map<string, StorageDaemon>()
  readonly #releases = new Map<string, Promise<void>>()

  constructor(options: PointKeeperOptions, undo: Undo) {
    this.#options = options
    this.#undo = undo
  }

  /** Idempotent by point id. Whatever `take` throws, nothing of the point remains. */
  async begin(
    about: Omit<PointFile, 'tag' | 'states' | 'point'>,
    take: (file: PointFile) => Promise<Point>,
  ): Promise<Point> {
    const { tag, runFolder } = this.#options
    const file: PointFile = { ...about, tag, states: [], point: null }
    const { pointId } = file
    const holder = await claimPointFile(runFolder, file)
    if (holder) {
      const same = holder.pointId === pointId && holder.tag === tag && holder.point !== null
      if (!same) throw vmBusy(file, holder)
      if (this.#daemons.get(pointId)?.alive) return holder.point as Point
      throw pointLost(pointId, 'its storage daemon ended')
    }
    try {
      file.point = await take(file)
      await this.save(file)
      return file.point
    } catch (thrown) {
      // What cannot be undone stays in the file, and the reaper tries again and reports.
      await this.release(pointId, 'dropped').catch(() => {})
      throw thrown
    }
  }

  /** Makes what `file` says survive this process. */
  async save(file: PointFile): Promise<void> {
    await replacePointFile(this.#options.runFolder, file)
  }

  async startDaemon(file: PointFile, signal: AbortSignal): Promise<StorageDaemon> {
    const folder = this.#folderOf(file.pointId)
    const daemon = await StorageDaemon.start({ folder, signal })
    this.#daemons.set(file.pointId, daemon)
    return daemon
  }

  async confirm(pointId: string): Promise<void> {
    const file = await this.#find(pointId)
    if (!file?.point) throw pointLost(pointId, 'it was released')
    // First, since a daemon that ends writes its bitmaps, which changes the image.
    const known = this.#daemons.get(pointId)
    const alive = known ? known.alive : (await this.#daemonsOf(pointId)).length > 0
    if (!alive) throw pointLost(pointId, 'the storage daemon that held its images ended')
    for (const state of file.states) await assertUnchanged(state)
  }

  /** Idempotent; callers that come at the same time share one release. */
  release(pointId: string, outcome: Outcome): Promise<void> {
    const running = this.#releases.get(pointId)
    if (running) return running
    const release = this.#release(pointId, outcome).finally(() => this.#releases.delete(pointId))
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

  /** Releases what this object holds: its daemons would not outlive the process. Bitmaps stay. */
  async [Symbol.asyncDispose](): Promise<void> {
    const pointIds = [...this.#daemons.keys()]
    await Promise.all(pointIds.map((pointId) => this.release(pointId, 'committed')))
  }

  async #release(pointId: string, outcome: Outcome): Promise<void> {
    const file = await this.#find(pointId)
    if (!file) return
    const daemon = this.#daemons.get(pointId)
    if (!daemon) {
      for (const left of await this.#daemonsOf(pointId)) await endStorageDaemon(left)
      await rm(this.#folderOf(pointId), { recursive: true, force: true })
    }
    try {
      await this.#undo.beforeClose(file, daemon?.alive ? daemon : null, outcome)
    } finally {
      await daemon?.close()
      this.#daemons.delete(pointId)
    }
    await this.#undo.afterClose(file)
    // The file goes last: it is the record of everything above.
    await removePointFile(this.#options.runFolder, file.vmIdentity)
  }

  /** Another installation's point is not ours to end, whoever asks. */
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

  #folderOf(pointId: string): string {
    const { runFolder, tag } = this.#options
    return daemonFolder(runFolder, tag, pointId)
  }
}

const vmBusy = (mine: PointFile, holder: PointFile) =>
  new BackupError(
    'VM_BUSY',
    `begin a point of VM ${mine.vmName}: point ${holder.pointId} of installation ${holder.tag} holds it; wait until that backup ends`,
    { vm: mine.vmName, owner: holder.pointId, installation: holder.tag },
  )

const pointLost = (pointId: string, cause: string) =>
  new BackupError('POINT_LOST', `read point ${pointId}: ${cause}; the next run takes a new point`, {
    pointId,
    cause,
  })
