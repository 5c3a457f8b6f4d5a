// The block map of a VDI image: one number per MiB of the disk.
import { type ReadTable, tablePieces } from './block_table.ts'

const blockBytes = 1024 * 1024
/** This and the number above it mean: no block. */
const discarded = 0xfffffffe

export const readVdiTable: ReadTable = async (file, sizeBytes, begin, signal) => {
  const head = await file.read(0, 512)
  const mapOffset = head.readUInt32LE(340)
  const dataOffset = head.readUInt32LE(344)
  const count = Math.ceil(sizeBytes / blockBytes)
  const map = { offset: mapOffset, sizeBytes: head.readUInt32LE(384) * 4 }
  const visit = begin({ blockBytes, reserved: [{ offset: 0, sizeBytes: 512 }, map] })
  for await (const { at, piece } of tablePieces(file, mapOffset, count * 4, signal)) {
    for (let entry = 0; entry < piece.length; entry += 4) {
      const block = piece.readUInt32LE(entry)
      if (block >= discarded) continue
      const diskOffset = ((at + entry) / 4) * blockBytes
      const diskBytes = Math.min(blockBytes, sizeBytes - diskOffset)
      const fileOffset = dataOffset + block * blockBytes
      visit({ diskOffset, diskBytes, fileOffset, fileBytes: diskBytes })
    }
  }
}
