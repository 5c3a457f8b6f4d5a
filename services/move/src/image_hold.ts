// An image that is restored over, held so that nobody else uses it: QEMU's own lock is taken
// before anything is looked at, and whoever writes is whoever holds it. A raw image is written
// directly, through the very file that is locked; any other through a storage daemon of QEMU,
// which holds the lock: when it ends, no byte gets through any more.
import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { asBackupError, BackupError, type Reason } from '@blockferry/errors'
import {
  assertNoWriter,
  assertSameFile,
  checkLayer,
  endDaemonsIn,
  findAgain,
  findImage,
  type ImageDisk,
  QmpRefusal,
  rememberState,
  rememberStates,
  StorageDaemon,
} from '@blockferry/hypervisor'
import { forgetCached, type RestoredImageAddress } from '@blockferry/native'
import type { ImageFormatName } from '@blockferry/proto'
import { inUse, openLocked } from './image_lock.ts'
import { atTarget } from './target_failure.ts'

export interface ImageHold extends AsyncDisposable {
  readonly address: RestoredImageAddress
  /** Size of the disk in the image. */
  readonly sizeBytes: number
  /** Removes bitmaps of ours: they record against backups which the image will not descend from. */
  untrack(): Promise<void>
  /**
   * Begins to record changes under `bitmap`, where the format can. REQUIRES: the image holds the
   * whole disk of the backup that the bitmap is named for. Errors: TARGET_WRITE_FAILED.
   */
  track(bitmap: string | null): Promise<void>
}

export interface HeldImage {
  path: string
  disk: string
  format: ImageFormatName
}

/**
 * Errors: TARGET_IN_USE, TARGET_DENIED, TARGET_WRITE_FAILED, IMAGE_MISSING, IMAGE_DAMAGED,
 * IMAGE_CHANGED, IMAGE_FORMAT_WRONG, DISK_FORMAT_UNSUPPORTED, TOOL_MISSING.
 */
export async function holdImage(
  image: HeldImage,
  runFolder: string,
  signal: AbortSignal,
): Promise<ImageHold> {
  const { path, format } = image
  const folder = join(runFolder, `restore-${shortName(path)}`)
  if (held.has(path)) throw inUse(path, 'another restore of this mover')
  held.add(path)
  try {
    // What a mover that was killed left; nobody else uses this mover's folder.
    await endDaemonsIn(folder)
    await assertUnused(path, signal)
    const hold =
      format === 'raw' ? await RawHold.take(path) : await DaemonHold.take(image, folder, signal)
    return {
      address: hold.address,
      sizeBytes: hold.sizeBytes,
      untrack: () => hold.untrack(),
      track: (bitmap) => hold.track(bitmap),
      async [Symbol.asyncDispose]() {
        await hold[Symbol.asyncDispose]()
        held.delete(path)
      },
    }
  } catch (thrown) {
    held.delete(path)
    throw thrown
  }
}

/** What the file system holds is read, not what the page cache has kept of a write that failed. */
export async function readFromDisk(path: string): Promise<void> {
  await using file = await atTarget('open', path, () => open(path, 'r'))
  await forgetCached(file.fd, path)
}

/** Images that this process holds. */
const held = new Set<string>()

class RawHold implements ImageHold {
  readonly address: RestoredImageAddress
  readonly sizeBytes: number
  readonly #file: FileHandle

  private constructor(file: FileHandle, path: string, sizeBytes: number) {
    this.#file = file
    this.address = { kind: 'raw', fd: file.fd, path }
    this.sizeBytes = sizeBytes
  }

  static async take(path: string): Promise<RawHold> {
    const file = await openLocked(path, 'r+')
    const { size } = await file.stat()
    return new RawHold(file, path, size)
  }

  /** A raw image has no room for a record of changes. */
  async untrack(): Promise<void> {}
  async track(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}

interface NodeAnswer {
  'node-name': string
  image: {
    'virtual-size': number
    'format-specific'?: { type: string; data?: { compat?: string; 'create-type'?: string } }
  }
  'dirty-bitmaps'?: { name?: string }[]
}

const node = 'disk'
const shownNode = 'shown'
/** As of all bitmaps of ours; the size of a block of the repository. */
const granularity = 65_536

class DaemonHold implements ImageHold {
  readonly address: RestoredImageAddress
  readonly sizeBytes: number
  readonly #daemon: StorageDaemon
  readonly #path: string
  readonly #storesBitmaps: boolean

  private constructor(daemon: StorageDaemon, path: string, uri: string, answer: NodeAnswer) {
    this.#daemon = daemon
    this.#path = path
    this.address = { kind: 'nbd', uri }
    this.sizeBytes = answer.image['virtual-size']
    // Version 2 of qcow2, compat 0.10, has no room for bitmaps.
    const { type, data } = answer.image['format-specific'] ?? {}
    this.#storesBitmaps = type === 'qcow2' && data?.compat === '1.1'
  }

  static async take(image: HeldImage, folder: string, signal: AbortSignal): Promise<DaemonHold> {
    const { path } = image
    const disk = await findDisk(image)
    const { id, layers } = disk
    const states = await rememberStates({ disks: [disk] }, signal)
    // Writing into tables that contradict each other would spoil what is right.
    for (const layer of layers) await checkLayer(id, layer, signal).catch(failedCheck(path))
    const daemon = await StorageDaemon.start({ folder, signal })
    try {
      await daemon.openImage({ nodeName: node, layers, writable: true })
      // A check takes minutes, and nothing was locked before.
      await findAgain(disk)
      for (const state of states) await assertSameFile(state)
      const answer = await readNode(daemon)
      if (answer.image['format-specific']?.data?.['create-type'] === 'streamOptimized') {
        throw notWritable(image, 'its data is compressed, and nothing in it can be written again')
      }
      // The end of a disk need not be that of a sector, and VHDX takes whole sectors; raw takes any.
      const shown = { driver: 'raw', 'node-name': shownNode, file: node }
      await daemon.qmp.execute('blockdev-add', shown)
      const uri = await daemon.exportNbd(shownNode, node, [], true)
      return new DaemonHold(daemon, path, uri, answer)
    } catch (thrown) {
      await daemon.close()
      throw thrown instanceof QmpRefusal ? openFailure(path, thrown.description) : thrown
    }
  }

  /** Those of other programs stay: they record what is written here, as any other write. */
  async untrack(): Promise<void> {
    const { 'dirty-bitmaps': bitmaps = [] } = await readNode(this.#daemon)
    for (const { name = '' } of bitmaps) {
      if (!/^blockferry(-view)?\./.test(name)) continue
      await this.#daemon.qmp.execute('block-dirty-bitmap-remove', { node, name })
    }
  }

  async track(bitmap: string | null): Promise<void> {
    if (!this.#daemon.alive) {
      throw new BackupError(
        'TARGET_WRITE_FAILED',
        `restore over ${this.#path}: the storage daemon that held its lock ended; restore again`,
        { target: this.#path },
      )
    }
    if (bitmap === null || !this.#storesBitmaps) return
    // Without it the next backup reads everything, which is no reason to call the restore failed.
    await this.#daemon.qmp
      .execute('block-dirty-bitmap-add', { node, name: bitmap, persistent: true, granularity })
      .catch((thrown) => {
        if (!(thrown instanceof QmpRefusal)) throw thrown
      })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#daemon.close()
  }
}

/** The image with what lies below it. What is written must be one file: the one that is locked. */
async function findDisk({ path, disk, format }: HeldImage): Promise<ImageDisk> {
  const found = await findImage({ path, id: disk, format }, null)
  if (found.kind !== 'disk') {
    const { reason, message } = found.kind === 'refused' ? found : found.uncovered
    throw new BackupError(reason as Reason, `restore over ${path}: ${message}`, { target: path })
  }
  const parts = found.disk.layers[0]?.parts ?? []
  if (parts.length === 0) return found.disk
  throw notWritable({ path, format }, `it keeps its data in other files (${parts.join(', ')})`)
}

const notWritable = ({ path, format }: Omit<HeldImage, 'disk'>, why: string): BackupError =>
  new BackupError(
    'DISK_FORMAT_UNSUPPORTED',
    `restore over ${path}: ${why}; restore to a folder and bring the image into place yourself`,
    { target: path, format },
  )

async function readNode(daemon: StorageDaemon): Promise<NodeAnswer> {
  const nodes = await daemon.qmp.execute<NodeAnswer[]>('query-named-block-nodes', { flat: true })
  const found = nodes.find((one) => one['node-name'] === node)
  if (!found) throw new Error('the storage daemon does not know its node')
  return found
}

/** Also programs that take no lock must not write; those of other users only root sees. */
async function assertUnused(path: string, signal: AbortSignal): Promise<void> {
  try {
    await assertNoWriter([await rememberState(path, signal)])
  } catch (thrown) {
    const failure = asBackupError(thrown)
    if (failure?.reason !== 'IMAGE_IN_USE') throw thrown
    throw inUse(path, failure.metadata.cause ?? 'a process has it open for writing')
  }
}

const failedCheck = (path: string) => (thrown: unknown) => {
  const failure = asBackupError(thrown)
  if (failure?.reason === 'IMAGE_IN_USE') throw inUse(path, 'another process has it open')
  if (failure?.reason !== 'IMAGE_DAMAGED') throw thrown
  const { cause = '' } = failure.metadata
  throw new BackupError(
    'IMAGE_DAMAGED',
    `restore over ${path}: its tables are damaged (${cause}); restore in place without --differential, which makes a new image`,
    { target: path, cause },
  )
}

function openFailure(path: string, cause: string): BackupError {
  const metadata = { target: path, cause }
  if (/Failed to get .*lock/.test(cause)) return inUse(path, 'another process has it open')
  const message = `restore over ${path}: ${cause}`
  if (/Permission denied|Read-only/i.test(cause)) {
    return new BackupError('TARGET_DENIED', `${message}; let this user write there`, metadata)
  }
  return new BackupError(
    'TARGET_WRITE_FAILED',
    `${message}; restore in place without --differential, which makes a new image`,
    metadata,
  )
}

/** Short, since a socket lies below, and the same for every restore over the image. */
const shortName = (path: string): string =>
  createHash('sha256').update(path).digest('hex').slice(0, 8)
