// A file that may be a disk image, or a block device, looked at in bounded pieces: whoever made the
// image chose every number in it, so no number decides how much is read.
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { deviceBytes } from './block_device.ts'

/** No header, table or descriptor that is looked at here is longer. */
const pieceBytesMax = 1024 * 1024

/** What is named is neither a file nor a block device, or its size is not known. */
export class NotAnImage extends Error {}

export class ImageFile implements AsyncDisposable {
  readonly path: string
  readonly sizeBytes: number
  readonly isDevice: boolean
  readonly #file: FileHandle

  private constructor(path: string, file: FileHandle, sizeBytes: number, isDevice: boolean) {
    this.path = path
    this.sizeBytes = sizeBytes
    this.isDevice = isDevice
    this.#file = file
  }

  /** Errors: those of the file system, as they are; NotAnImage. */
  static async open(path: string): Promise<ImageFile> {
    // Without waiting: opening a pipe in the place of an image would wait for its writer.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const found = await file.stat()
      if (found.isFile()) return new ImageFile(path, file, found.size, false)
      if (!found.isBlockDevice()) {
        throw new NotAnImage('it is neither a file nor a block device')
      }
      return new ImageFile(path, file, await sizeOfDevice(found.rdev), true)
    } catch (thrown) {
      await file.close()
      throw thrown
    }
  }

  /** Shorter than asked for where the file ends. */
  async read(offset: number, sizeBytes: number): Promise<Buffer> {
    const there = Math.max(0, Math.min(sizeBytes, this.sizeBytes - offset))
    if (there > pieceBytesMax) throw new Error(`a piece of ${there} bytes of ${this.path}`)
    const piece = Buffer.alloc(there)
    const { bytesRead } = await this.#file.read(piece, 0, there, offset)
    return piece.subarray(0, bytesRead)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}

async function sizeOfDevice(rdev: number): Promise<number> {
  const sizeBytes = await deviceBytes(BigInt(rdev))
  if (sizeBytes !== null) return sizeBytes
  throw new NotAnImage('a device whose size the kernel does not tell')
}

/** A 64 bit number of a header, or null when no disk has so many bytes. */
export function sizeOf(value: bigint): number | null {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : null
}
