// The block allocation table of a VHDX image. After every `chunkRatio` blocks of the disk it has an
// entry for a bitmap of sectors, which only images with a parent use.
import { type ReadTable, TableDamaged, tablePieces } from './block_table.ts'
import { readVhdxLayout } from './vhdx_header.ts'

const entryBytes = 8
// 0 to 3 and 5 read as zeroes, 4 is none of the format's.
const reservedState = 4
const fullyPresent = 6
const partlyPresent = 7
const sectorsPerBitmap = 2 ** 23
const offsetUnitBytes = 1024 * 1024

export const readVhdxTable: ReadTable = async (file, sizeBytes, begin, signal) => {
  const layout = await readVhdxLayout(file)
  if (typeof layout === 'string') throw new TableDamaged(`${file.path}: ${layout}`)
  const { tableOffset, tableBytes, blockBytes, sectorBytes } = layout
  const chunkRatio = (sectorsPerBitmap * sectorBytes) / blockBytes
  const reserved = [
    // File type, headers and region tables.
    { offset: 0, sizeBytes: offsetUnitBytes },
    { offset: tableOffset, sizeBytes: tableBytes },
    ...layout.reserved,
  ]
  const visit = begin({ blockBytes, reserved })
  const count = Math.ceil(sizeBytes / blockBytes)
  const entries = count === 0 ? 0 : count + Math.floor((count - 1) / chunkRatio)
  if (entries * entryBytes > tableBytes) {
    throw new TableDamaged(`${file.path}: its block table is too short for ${sizeBytes} bytes`)
  }
  for await (const { at, piece } of tablePieces(file, tableOffset, entries * entryBytes, signal)) {
    for (let entry = 0; entry < piece.length; entry += entryBytes) {
      const index = (at + entry) / entryBytes
      const inChunk = index % (chunkRatio + 1)
      const state = (piece[entry] ?? 0) & 7
      if (inChunk === chunkRatio) continue
      if (state === reservedState) {
        throw new TableDamaged(`${file.path}: its block table has a state that there is not`)
      }
      if (state < fullyPresent) continue
      if (state === partlyPresent) {
        throw new TableDamaged(`${file.path}: its block table refers to a parent that it has not`)
      }
      const block = Math.floor(index / (chunkRatio + 1)) * chunkRatio + inChunk
      const diskOffset = block * blockBytes
      const diskBytes = Math.min(blockBytes, sizeBytes - diskOffset)
      const fileOffset = Number(piece.readBigUInt64LE(entry) >> 20n) * offsetUnitBytes
      visit({ diskOffset, diskBytes, fileOffset, fileBytes: diskBytes })
    }
  }
}
