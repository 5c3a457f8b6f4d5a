// The grain directory and the grain tables of a sparse VMDK file. A directory entry names the sector
// of a table, a table entry the sector of a grain; 0 is none, and 1 can mean a grain of zeroes.
import { type ReadTable, TableDamaged, tablePieces, type VisitBlock } from './block_table.ts'
import type { ImageFile } from './image_file.ts'

const sectorBytes = 512
const redundantFlag = 1 << 1
const zeroedGrainFlag = 1 << 2
const compressedFlag = 1 << 16
const directoryAtEnd = 0xffffffffffffffffn
/** Marker, header and end marker of a file whose directory was written last. */
const endBytes = 3 * sectorBytes
/** Tables that lie behind each other are read together. */
const runBytesMax = 1024 * 1024

interface Grains {
  file: ImageFile
  sizeBytes: number
  grainBytes: number
  tableBytes: number
  isCompressed: boolean
  hasZeroedGrains: boolean
  visit: VisitBlock
}

export const readVmdkTable: ReadTable = async (file, sizeBytes, begin, signal) => {
  const first = await file.read(0, sectorBytes)
  let header = first
  const reserved = [{ offset: 0, sizeBytes: sectorBytes }]
  if (header.length === sectorBytes && header.readBigUInt64LE(56) === directoryAtEnd) {
    const endOffset = file.sizeBytes - endBytes
    header = (await file.read(endOffset, endBytes)).subarray(sectorBytes)
    reserved.push({ offset: endOffset, sizeBytes: endBytes })
  }
  if (header.length < sectorBytes || header.toString('latin1', 0, 4) !== 'KDMV') {
    throw new TableDamaged(`${file.path}: the header at its end is missing; it is cut off`)
  }
  // The one at the start has been judged: capacity, grain and entries of a table are bounded.
  const bounded = ([from, to]: [number, number]) =>
    header.subarray(from, to).equals(first.subarray(from, to))
  if (
    !(
      [
        [12, 28],
        [44, 48],
      ] as [number, number][]
    ).every(bounded)
  ) {
    throw new TableDamaged(`${file.path}: its header and the one at its end differ`)
  }
  const flags = header.readUInt32LE(8)
  const capacityBytes = Number(header.readBigUInt64LE(12)) * sectorBytes
  const grainBytes = Number(header.readBigUInt64LE(20)) * sectorBytes
  const tableBytes = header.readUInt32LE(44) * 4
  const isCompressed = (flags & compressedFlag) !== 0
  const directory = Number(header.readBigUInt64LE(56)) * sectorBytes
  const descriptor = {
    offset: Number(first.readBigUInt64LE(28)) * sectorBytes,
    sizeBytes: Number(first.readBigUInt64LE(36)) * sectorBytes,
  }
  reserved.push(descriptor)
  const disk = Math.min(sizeBytes, capacityBytes)
  const count = Math.ceil(disk / ((tableBytes / 4) * grainBytes))
  // The second directory names copies of the same tables.
  const second =
    (flags & redundantFlag) !== 0 ? Number(header.readBigUInt64LE(48)) * sectorBytes : 0
  for (const offset of [directory, second]) {
    if (offset === 0 || offset + count * 4 > file.sizeBytes) continue
    reserved.push({ offset, sizeBytes: count * 4 })
    for await (const { piece } of tablePieces(file, offset, count * 4, signal)) {
      for (let entry = 0; entry < piece.length; entry += 4) {
        const table = piece.readUInt32LE(entry) * sectorBytes
        if (table !== 0) reserved.push({ offset: table, sizeBytes: tableBytes })
      }
    }
  }
  const grains: Grains = {
    ...{ file, sizeBytes: disk, grainBytes, tableBytes },
    ...{ isCompressed, hasZeroedGrains: (flags & zeroedGrainFlag) !== 0 },
    // A compressed grain takes at least a sector, how many is only known by reading it.
    visit: begin({ blockBytes: isCompressed ? sectorBytes : grainBytes, reserved }),
  }
  await readDirectory(grains, directory, signal)
}

async function readDirectory(grains: Grains, offset: number, signal: AbortSignal): Promise<void> {
  const { file, sizeBytes, grainBytes, tableBytes } = grains
  const perTable = (tableBytes / 4) * grainBytes
  const count = Math.ceil(sizeBytes / perTable)
  let run = { diskOffset: 0, fileOffset: 0, sizeBytes: 0 }
  for await (const { at, piece } of tablePieces(file, offset, count * 4, signal)) {
    for (let entry = 0; entry < piece.length; entry += 4) {
      const sector = piece.readUInt32LE(entry)
      if (sector === 0) continue
      const diskOffset = ((at + entry) / 4) * perTable
      const fileOffset = sector * sectorBytes
      const follows =
        run.fileOffset + run.sizeBytes === fileOffset &&
        run.diskOffset + (run.sizeBytes / tableBytes) * perTable === diskOffset &&
        run.sizeBytes + tableBytes <= runBytesMax
      if (follows) {
        run.sizeBytes += tableBytes
        continue
      }
      await readGrainTables(grains, run, signal)
      run = { diskOffset, fileOffset, sizeBytes: tableBytes }
    }
  }
  await readGrainTables(grains, run, signal)
}

async function readGrainTables(
  grains: Grains,
  run: { diskOffset: number; fileOffset: number; sizeBytes: number },
  signal: AbortSignal,
): Promise<void> {
  const { file, sizeBytes, grainBytes, isCompressed, hasZeroedGrains, visit } = grains
  for await (const { at, piece } of tablePieces(file, run.fileOffset, run.sizeBytes, signal)) {
    for (let entry = 0; entry < piece.length; entry += 4) {
      const sector = piece.readUInt32LE(entry)
      if (sector === 0 || (sector === 1 && hasZeroedGrains)) continue
      const diskOffset = run.diskOffset + ((at + entry) / 4) * grainBytes
      if (diskOffset >= sizeBytes) return
      const diskBytes = Math.min(grainBytes, sizeBytes - diskOffset)
      const fileBytes = isCompressed ? sectorBytes : diskBytes
      visit({ diskOffset, diskBytes, fileOffset: sector * sectorBytes, fileBytes })
    }
  }
}
