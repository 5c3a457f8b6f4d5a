// Which bytes of an image file its tables give to which block of the disk. Every block has bytes of
// its own, inside the file: QEMU reads zeroes behind the end of a file that was cut off, and would
// read the same bytes a million times for an image that claims them a million times.
//
// Blocks of one size that do not overlap start at most once in each stretch of that size, so a table
// with the start in each stretch finds every overlap. It grows with what is claimed, 4 bytes each.

const pageEntries = 16_384
const sectorBytes = 512

export class FileClaims {
  readonly #fileBytes: number
  readonly #blockBytes: number
  readonly #pages = new Map<number, Uint32Array>()

  /** `blockBytes`: what a block takes in the file, at least a sector. */
  constructor(fileBytes: number, blockBytes: number) {
    this.#fileBytes = fileBytes
    this.#blockBytes = blockBytes
  }

  /** What is wrong with a block's bytes, or null. `sizeBytes` is less for the end of the disk. */
  claim(offset: number, sizeBytes: number): string | null {
    if (offset + sizeBytes > this.#fileBytes) {
      return `its tables name byte ${offset + sizeBytes} of ${this.#fileBytes}; it is cut off`
    }
    // Only the end of the disk, which may take as little as it needs.
    if (sizeBytes < this.#blockBytes) return null
    const stretch = Math.floor(offset / this.#blockBytes)
    // One more than the sector in the stretch; 0 is free.
    const start = Math.floor((offset % this.#blockBytes) / sectorBytes) + 1
    const before = this.#startIn(stretch - 1)
    const after = this.#startIn(stretch + 1)
    const overlaps =
      this.#startIn(stretch) !== 0 || before > start || (after !== 0 && after < start)
    if (overlaps) return `its tables give byte ${offset} to two blocks`
    this.#page(stretch)[stretch % pageEntries] = start
    return null
  }

  #startIn(stretch: number): number {
    if (stretch < 0) return 0
    return this.#pages.get(Math.floor(stretch / pageEntries))?.[stretch % pageEntries] ?? 0
  }

  #page(stretch: number): Uint32Array {
    const index = Math.floor(stretch / pageEntries)
    let page = this.#pages.get(index)
    if (!page) {
      page = new Uint32Array(pageEntries)
      this.#pages.set(index, page)
    }
    return page
  }
}
