// One disk on its way back into the image that is there: what differs is found by reading it, and
// only that is written. The order of the steps is the session's, since it concerns all disks.
import { realpath, stat } from 'node:fs/promises'
import { asBackupError, BackupError } from '@blockferry/errors'
import type { Repository, StoredDisk } from '@blockferry/native'
import type { ImageFormatName } from '@blockferry/proto'
import { holdImage, type ImageHold, readFromDisk } from './image_hold.ts'
import type { MovingDisk } from './moving_disk.ts'
import { sync } from './place_image.ts'
import { isMarked, type MarkedRestore, removeMark, writeMark } from './restore_mark.ts'

export interface DifferentialOrder {
  disk: MovingDisk
  stored: StoredDisk
  path: string
  format: ImageFormatName
  restore: Pick<MarkedRestore, 'backup' | 'repository' | 'session'>
  /** Name of the bitmap that records what changes after the backup's point; null: nobody uses one. */
  bitmap: string | null
}

/** QEMU counts disks in sectors: an image of another size is rounded up and ends in zeroes. */
const sectorSize = 512

export class DifferentialImage {
  readonly disk: MovingDisk
  /** Behind a symbolic link. */
  readonly path: string
  readonly #order: DifferentialOrder
  #hold: ImageHold | null = null
  /** It was whole before this session marked it. */
  #isNewlyMarked = false

  private constructor(order: DifferentialOrder, path: string) {
    this.disk = order.disk
    this.path = path
    this.#order = order
  }

  /** Errors: IMAGE_MISSING, TARGET_WRITE_FAILED. */
  static async prepare(order: DifferentialOrder): Promise<DifferentialImage> {
    const found = await stat(order.path).catch(() => null)
    if (!found) {
      throw new BackupError(
        'IMAGE_MISSING',
        `restore over ${order.path}: there is no such image; restore in place without --differential, which makes a new one`,
        { target: order.path },
      )
    }
    const path = await realpath(order.path)
    if (!found.isFile()) {
      throw new BackupError(
        'TARGET_WRITE_FAILED',
        `restore over ${path}: it is not a file; restore to a folder and copy the image there`,
        { target: path },
      )
    }
    order.disk.targetPath = path
    return new DifferentialImage(order, path)
  }

  /** Nobody else uses the image from here on until it is released. Changes no byte of the disk. */
  async hold(runFolder: string, signal: AbortSignal): Promise<void> {
    const { format, stored } = this.#order
    const found = { path: this.path, disk: this.disk.id, format }
    if (await isMarked(this.path)) await readFromDisk(this.path)
    this.#hold = await holdImage(found, runFolder, signal)
    const tailSize = this.#hold.sizeBytes - stored.size_bytes
    const fits = tailSize === 0 || (format !== 'raw' && tailSize > 0 && tailSize < sectorSize)
    if (!fits) throw sizeMismatch(this.path, this.#hold.sizeBytes, stored.size_bytes)
  }

  /** REQUIRES: it is held. */
  async mark(): Promise<void> {
    this.#isNewlyMarked = !(await isMarked(this.path))
    await writeMark({ ...this.#order.restore, image: this.path, disk: this.disk.id })
  }

  /** REQUIRES: the session has written to no image. A mark that was there before stays. */
  async takeBackMark(): Promise<void> {
    if (this.#isNewlyMarked) await removeMark(this.path)
  }

  /** Makes the image hold the disk, durably. REQUIRES: every image of the session is marked. */
  async write(repository: Repository, signal: AbortSignal): Promise<void> {
    const { stored } = this.#order
    const { address } = this.#held
    await this.#held.untrack()
    await this.disk.run(repository.restoreDifference(stored, address), signal)
    await sync(this.path)
    this.disk.finish(stored.root)
  }

  /** REQUIRES: every image of the session is written. */
  async unmark(): Promise<void> {
    await this.#held.track(this.#order.bitmap)
    await removeMark(this.path)
  }

  async release(): Promise<void> {
    await this.#hold?.[Symbol.asyncDispose]()
    this.#hold = null
  }

  /** Names the disk and its place, and says what to do about an image that is half restored. */
  async explain(thrown: unknown): Promise<unknown> {
    const failure = asBackupError(thrown)
    if (!failure || failure.reason === 'CANCELLED') return thrown
    const left = (await isMarked(this.path))
      ? '; the image is half restored and marked: mend that and run the same restore again'
      : ''
    const metadata = { ...failure.metadata, disk: this.disk.id, target: this.path }
    const message = `restore disk ${this.disk.id} over ${this.path}: ${failure.message}${left}`
    return new BackupError(failure.reason, message, metadata, { cause: thrown })
  }

  get #held(): ImageHold {
    if (!this.#hold) throw new Error(`${this.path} is not held`)
    return this.#hold
  }
}

const sizeMismatch = (path: string, found: number, needed: number): BackupError =>
  new BackupError(
    'DISK_SIZE_MISMATCH',
    `compare ${path}: its disk has ${found} bytes, in the backup it has ${needed}; restore in place without --differential, which makes an image of that size`,
    { target: path, found_bytes: String(found), needed_bytes: String(needed) },
  )
