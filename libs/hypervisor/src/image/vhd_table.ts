// The block allocation table of a dynamic VHD: where each block is, a bitmap of its sectors first.
import { type ReadTable, TableDamaged, tablePieces } from './block_table.ts'

const sectorBytes = 512
const unused = 0xffffffff

export const readVhdTable: ReadTable = async (file, sizeBytes, begin, signal) => {
  const footer = await file.read(0, 512)
  const headerOffset = Number(footer.readBigUInt64BE(16))
  const header = await file.read(headerOffset, 1024)
  const blockBytes = header.length === 1024 ? header.readUInt32BE(32) : 0
  if (blockBytes < sectorBytes) throw new TableDamaged(`${file.path}: its VHD header is cut off`)
  const bitmapBytes = Math.ceil(blockBytes / sectorBytes / 8 / sectorBytes) * sectorBytes
  const tableOffset = Number(header.readBigUInt64BE(16))
  const reserved = [
    { offset: 0, sizeBytes: 512 },
    { offset: headerOffset, sizeBytes: 1024 },
    { offset: tableOffset, sizeBytes: header.readUInt32BE(28) * 4 },
    { offset: file.sizeBytes - 512, sizeBytes: 512 },
  ]
  const visit = begin({ blockBytes: bitmapBytes + blockBytes, reserved })
  const count = Math.ceil(sizeBytes / blockBytes)
  for await (const { at, piece } of tablePieces(file, tableOffset, count * 4, signal)) {
    for (let entry = 0; entry < piece.length; entry += 4) {
      const sector = piece.readUInt32BE(entry)
      if (sector === unused) continue
      const diskOffset = ((at + entry) / 4) * blockBytes
      const diskBytes = Math.min(blockBytes, sizeBytes - diskOffset)
      const fileOffset = sector * sectorBytes
      visit({ diskOffset, diskBytes, fileOffset, fileBytes: bitmapBytes + diskBytes })
    }
  }
}
