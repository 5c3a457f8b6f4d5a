// Which bytes of an image file its tables give to which block of the disk. Every block has bytes of
// its own, inside the file and outside of headers and tables: QEMU reads zeroes behind the end of a
// file that was cut off, would read the same bytes a million times for an image that claims them a
// million times, and would write a block over the table that names it.
//
// Blocks of one size that do not overlap start at most once in each stretch of that size, so a table
// with the start in each stretch finds every overlap. It grows with what is claimed.

const pageEntries = 16_384
/** A page with fewer entries is a map: a hostile image could else spread few claims over many pages. */
const sparseEntriesMax = 1024
const sectorBytes = 512

export interface FileRange {
  offset: number
  sizeBytes: number
}

export class FileClaims {
  readonly #fileBytes: number
  readonly #blockBytes: number
  readonly #pages = new Map<number, Map<number, number> | Uint32Array>()
  /** Ascending, apart from each other. */
  readonly #reserved: FileRange[]
  /** The end of the disk, which takes as little as it needs. */
  #short: FileRange | null = null

  /** `blockBytes`: what a block takes in the file, at least a sector; `reserved`: is no block's. */
  constructor(fileBytes: number, blockBytes: number, reserved: FileRange[]) {
    this.#fileBytes = fileBytes
    this.#blockBytes = blockBytes
    this.#reserved = joined(reserved)
  }

  /** What is wrong with a block's bytes, or null. `sizeBytes` is less for the end of the disk. */
  claim(offset: number, sizeBytes: number): string | null {
    const end = offset + sizeBytes
    if (end > this.#fileBytes) {
      return `its tables name byte ${end} of ${this.#fileBytes}; it is cut off`
    }
    if (this.#isReserved(offset, end)) {
      return `its tables give byte ${offset}, where its own header or tables lie, to a block`
    }
    const twice = `its tables give byte ${offset} to two blocks`
    const short = this.#short
    if (short && short.offset < end && short.offset + short.sizeBytes > offset) return twice
    if (sizeBytes < this.#blockBytes) {
      if (this.#holdsBlock(offset, end)) return twice
      this.#short = { offset, sizeBytes }
      return null
    }
    const stretch = Math.floor(offset / this.#blockBytes)
    // One more than the sector in the stretch; 0 is free.
    const start = Math.floor((offset % this.#blockBytes) / sectorBytes) + 1
    const before = this.#startIn(stretch - 1)
    const after = this.#startIn(stretch + 1)
    const overlaps =
      this.#startIn(stretch) !== 0 || before > start || (after !== 0 && after < start)
    if (overlaps) return twice
    this.#setStart(stretch, start)
    return null
  }

  #isReserved(offset: number, end: number): boolean {
    let low = 0
    let high = this.#reserved.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const range = this.#reserved[middle] as FileRange
      if (range.offset + range.sizeBytes <= offset) low = middle + 1
      else high = middle
    }
    return (this.#reserved[low]?.offset ?? end) < end
  }

  #holdsBlock(offset: number, end: number): boolean {
    const last = Math.floor((end - 1) / this.#blockBytes)
    for (let at = Math.floor(offset / this.#blockBytes) - 1; at <= last; at++) {
      const start = this.#startIn(at)
      const begin = at * this.#blockBytes + (start - 1) * sectorBytes
      if (start !== 0 && begin < end && begin + this.#blockBytes > offset) return true
    }
    return false
  }

  #startIn(stretch: number): number {
    if (stretch < 0) return 0
    const page = this.#pages.get(Math.floor(stretch / pageEntries))
    const at = stretch % pageEntries
    return (page instanceof Map ? page.get(at) : page?.[at]) ?? 0
  }

  #setStart(stretch: number, start: number): void {
    const index = Math.floor(stretch / pageEntries)
    let page = this.#pages.get(index) ?? new Map<number, number>()
    if (page instanceof Map && page.size >= sparseEntriesMax) {
      const whole = new Uint32Array(pageEntries)
      for (const [at, known] of page) whole[at] = known
      page = whole
    }
    if (page instanceof Map) page.set(stretch % pageEntries, start)
    else page[stretch % pageEntries] = start
    this.#pages.set(index, page)
  }
}

function joined(ranges: FileRange[]): FileRange[] {
  const all: FileRange[] = []
  for (const range of ranges.toSorted((a, b) => a.offset - b.offset)) {
    const last = all.at(-1)
    if (last && range.offset <= last.offset + last.sizeBytes) {
      const end = Math.max(last.offset + last.sizeBytes, range.offset + range.sizeBytes)
      last.sizeBytes = end - last.offset
    } else {
      all.push({ ...range })
    }
  }
  return all
}
