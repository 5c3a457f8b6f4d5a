// Which bytes of a disk an image holds, for formats of which QEMU says that all of it is data: of a
// VHDX of 2 TiB that holds 1 GiB it would read 2 TiB of zeroes.

import { checkTables } from './block_table.ts'
import type { ImageLayer } from './image_layers.ts'

/** They travel with the point, twelve bytes each. */
const runCountMax = 4_096
const gapBytesFirst = 1024 * 1024

interface Run {
  offset: number
  end: number
}

/** Null when QEMU knows better. Errors: TableDamaged, those of the file system. */
export async function readDataExtents(
  layers: ImageLayer[],
  signal: AbortSignal,
): Promise<number[] | null> {
  const [top] = layers
  if (top?.format !== 'vhdx' || layers.length > 1) return null
  const data = new DataExtents()
  await checkTables(top, signal, (offset, sizeBytes) => data.add(offset, sizeBytes))
  return data.flat()
}

/** Ascending runs; when there are too many, those with small gaps between them become one. */
export class DataExtents {
  #runs: Run[] = []
  #gapBytes = gapBytesFirst

  /** REQUIRES: ascending offsets. */
  add(offset: number, sizeBytes: number): void {
    append(this.#runs, { offset, end: offset + sizeBytes }, this.#gapBytes)
    while (this.#runs.length > runCountMax) {
      this.#gapBytes *= 2
      const merged: Run[] = []
      for (const run of this.#runs) append(merged, run, this.#gapBytes)
      this.#runs = merged
    }
  }

  /** Pairs of offset and size. */
  flat(): number[] {
    return this.#runs.flatMap(({ offset, end }) => [offset, end - offset])
  }
}

function append(runs: Run[], run: Run, gapBytes: number): void {
  const last = runs.at(-1)
  if (last && run.offset - last.end < gapBytes) last.end = run.end
  else runs.push(run)
}
