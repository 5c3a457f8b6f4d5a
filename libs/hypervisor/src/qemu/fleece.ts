// Where the old content of blocks goes that the guest overwrites while a point is
// read: a sparse file per disk on this host, or an NBD server elsewhere.
import { open, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { formatBytes } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'

export type FleecePlace =
  | { folder: string; freeBytesMin: number }
  /** A server with an export per store, named as the file would be. */
  | { nbdSocket: string }

export class Fleece {
  #place: FleecePlace

  constructor(place: FleecePlace) {
    this.#place = place
  }

  /** The folder to look for leftovers in, or null. */
  get folder(): string | null {
    return 'folder' in this.#place ? this.#place.folder : null
  }

  /** Errors: FLEECE_FULL when there is less room than a point may soon need. */
  async checkRoom(): Promise<void> {
    if (!('folder' in this.#place)) return
    const { folder, freeBytesMin } = this.#place
    const free = await freeBytes(folder)
    if (free >= freeBytesMin) return
    throw new BackupError(
      'FLEECE_FULL',
      `take a point: ${folder} has ${formatBytes(free)} free and at least ${formatBytes(freeBytesMin)} are needed for blocks that the guest overwrites; free space or name another folder`,
      { folder, free_bytes: String(free), free_bytes_min: String(freeBytesMin) },
    )
  }

  /** For messages: how much room is left, or nothing when it cannot be known here. */
  async shownRoom(): Promise<string> {
    if (!('folder' in this.#place)) return ''
    const { folder } = this.#place
    return ` (${formatBytes(await freeBytes(folder))} free in ${folder})`
  }

  /** Makes the store of one disk; the answer is the node that QEMU opens it by. */
  async create(name: string, sizeBytes: number): Promise<Record<string, unknown>> {
    if (!('folder' in this.#place)) {
      const server = { type: 'unix', path: this.#place.nbdSocket }
      return { driver: 'nbd', 'node-name': name, server, export: name }
    }
    const filename = join(this.#place.folder, name)
    const file = await open(filename, 'wx', 0o600)
    try {
      await file.truncate(sizeBytes)
    } finally {
      await file.close()
    }
    return { driver: 'raw', 'node-name': name, file: { driver: 'file', filename } }
  }

  async remove(name: string): Promise<void> {
    if ('folder' in this.#place) await rm(join(this.#place.folder, name), { force: true })
  }
}

async function freeBytes(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder)
  return bavail * bsize
}
