// One disk on its way back: written under a temporary name beside its place.
import { chmod, type FileHandle, lstat, realpath, stat } from 'node:fs/promises'
import { BackupError } from '@blockferry/errors'
import type { Repository, StoredDisk } from '@blockferry/native'
import type { ImageFormatName } from '@blockferry/proto'
import { assertFits, createParameters, type QemuFormat } from './image_format.ts'
import { openLocked } from './image_lock.ts'
import type { MovingDisk } from './moving_disk.ts'
import {
  besidePath,
  isSameFile,
  placeNew,
  removeFile,
  sync,
  type TakeBack,
  takeOver,
} from './place_image.ts'
import { newSocketPath, runQemuImg, serveImage } from './program.ts'
import { isMarked, placeAndUnmark, placeOverMarked } from './restore_mark.ts'
import { atTarget } from './target_failure.ts'
import { assertOneFile, nameVmdk } from './vmdk_file.ts'

export interface ImageOrder {
  disk: MovingDisk
  stored: StoredDisk
  path: string
  format: ImageFormatName
  replace: boolean
}

export class RestoredImage {
  readonly disk: MovingDisk
  readonly format: ImageFormatName
  /** Where it ends up; behind a symbolic link when it replaces an image. */
  readonly path: string
  readonly #stored: StoredDisk
  readonly #part: string
  readonly #kept: string | null
  readonly #locked: FileHandle[] = []

  private constructor(order: ImageOrder, path: string, sessionId: string, index: number) {
    this.disk = order.disk
    this.format = order.format
    this.path = path
    this.#stored = order.stored
    this.#part = besidePath(path, '.', `.${sessionId}-${index}.part`)
    this.#kept = order.replace ? besidePath(path, '', `.before-${sessionId}`) : null
  }

  /**
   * Checks the place and takes back what an earlier process left of the same session.
   * Errors: DISK_FORMAT_UNSUPPORTED, TARGET_EXISTS, TARGET_IN_USE, TARGET_DENIED, TOOL_MISSING.
   */
  static async prepare(
    order: ImageOrder,
    sessionId: string,
    index: number,
  ): Promise<RestoredImage> {
    assertFits(order.format, order.disk.id, order.stored.size_bytes)
    const found = await stat(order.path).catch(() => null)
    const replace = order.replace && found !== null
    const path = replace ? await realpath(order.path) : order.path
    const image = new RestoredImage({ ...order, replace }, path, sessionId, index)
    if (found && !found.isFile()) throw targetExists(path, 'it is not a file')
    if (!replace && (await isSameFile(image.#part, path))) await removeFile(path)
    await atTarget('prepare', path, () => removeFile(image.#part))
    if (!replace && (await exists(path))) throw targetExists(path, 'it exists')
    if (replace && order.format === 'vmdk') await assertOneFile(order.disk.id, path)
    // Not only when it is swapped, hours later.
    if (replace) await (await openLocked(path, 'r')).close()
    if (order.format !== 'raw') await runQemuImg(['--version'])
    order.disk.targetPath = path
    return image
  }

  /** Writes the disk, so that it is durable under its temporary name. */
  async write(repository: Repository, runFolder: string, signal: AbortSignal): Promise<void> {
    if (this.format === 'raw') {
      await this.#restore(repository, { kind: 'raw', path: this.#part }, signal)
    } else {
      await this.#writeByQemu(this.format, repository, runFolder, signal)
    }
    if (this.#kept) await takeOver(this.#part, this.path)
    await sync(this.#part)
  }

  /** Gives the image its name. Nobody else gets at it, nor at the one it replaces, before `cleanUp`. */
  async place(): Promise<TakeBack> {
    if (this.#kept === null) {
      if (await isMarked(this.path)) await this.#lock(this.#part)
      return await placeAndUnmark(this.path, null, () => placeNew(this.#part, this.path))
    }
    await this.#lock(this.path)
    await this.#lock(this.#part)
    const takeBack = await placeOverMarked(this.#part, this.path, this.#kept)
    this.disk.keptPath = this.#kept
    return async () => {
      await takeBack()
      this.disk.keptPath = ''
    }
  }

  /** Removes the temporary name and the locks. */
  async cleanUp(): Promise<void> {
    for (const file of this.#locked.splice(0)) await file.close()
    await removeFile(this.#part)
  }

  async #lock(path: string): Promise<void> {
    this.#locked.push(await openLocked(path, 'r'))
  }

  async #writeByQemu(
    format: QemuFormat,
    repository: Repository,
    runFolder: string,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#create(format, signal)
    if (this.#stored.root === null) {
      this.disk.finish(null)
      return
    }
    const socketPath = newSocketPath(runFolder)
    const server = await serveImage(this.#part, format, socketPath, signal)
    try {
      await this.#restore(repository, { kind: 'nbd', uri: server.uri }, signal)
    } catch (thrown) {
      // What the restore failed with says more than how the daemon ended after it.
      await server.close().catch(() => {})
      throw thrown
    } finally {
      await removeFile(socketPath)
    }
    await server.close()
  }

  async #create(format: QemuFormat, signal: AbortSignal): Promise<void> {
    const parameters = createParameters(format, this.#part, this.#stored.size_bytes)
    const { code, stderr } = await runQemuImg(parameters, signal)
    if (code !== 0) throw createFailure(this.path, stderr)
    await atTarget('set the mode of', this.#part, () => chmod(this.#part, 0o600))
    if (format === 'vmdk') {
      await atTarget('name', this.#part, () => nameVmdk(this.#part, this.path))
    }
  }

  async #restore(
    repository: Repository,
    target: Parameters<Repository['restoreDisk']>[1],
    signal: AbortSignal,
  ): Promise<void> {
    await this.disk.run(repository.restoreDisk(this.#stored, target), signal)
    this.disk.finish(this.#stored.root)
  }
}

/** Also a symbolic link that leads nowhere is in the way. */
const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  )

const targetExists = (path: string, what: string): BackupError =>
  new BackupError('TARGET_EXISTS', `restore to ${path}: ${what}; remove it or name another place`, {
    target: path,
  })

function createFailure(path: string, stderr: string): BackupError {
  const what = stderr.trim()
  const metadata = { target: path, what }
  const message = `create image ${path}: ${what}`
  if (/No space left|quota/i.test(what)) {
    return new BackupError('TARGET_FULL', `${message}; free space or name another place`, metadata)
  }
  if (/Permission denied|Read-only/i.test(what)) {
    return new BackupError('TARGET_DENIED', `${message}; let this user write there`, metadata)
  }
  return new BackupError('TARGET_WRITE_FAILED', `${message}; check the storage`, metadata)
}
