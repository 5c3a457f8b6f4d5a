// The header of a VDI image of VirtualBox, version 1.1.
import { sizeOf } from './image_file.ts'
import { type ImageProbe, readable } from './image_format.ts'

const magic = Buffer.from([0x7f, 0x10, 0xda, 0xbe])
const headerBytes = 512
const sectorBytes = 512
/** QEMU reads no other, and VirtualBox writes no other. */
const blockBytesOnly = 1024 * 1024
const typeDynamic = 1
const typeStatic = 2
const uuidNone = Buffer.alloc(16)
/** The map of blocks is held in memory: 64 MiB. */
const blockCountMax = 16 * 2 ** 20

export const isVdi = (head: Buffer): boolean => head.subarray(64, 68).equals(magic)

export function probeVdi(head: Buffer, fileSize: number): ImageProbe {
  const damaged = (problem: string): ImageProbe => ({ kind: 'damaged', format: 'vdi', problem })
  if (head.length < headerBytes) return damaged('its VDI header is cut off')
  const version = head.readUInt32LE(68)
  if (version !== 0x00010001)
    return unsupported(`VDI version ${version >>> 16}.${version & 0xffff}`)
  const type = head.readUInt32LE(76)
  const isChild =
    !head.subarray(424, 440).equals(uuidNone) || !head.subarray(440, 456).equals(uuidNone)
  if (isChild || (type !== typeDynamic && type !== typeStatic)) {
    return unsupported('a VDI that holds only the differences to another one')
  }
  const blockBytes = head.readUInt32LE(376)
  const blockCount = head.readUInt32LE(384)
  const claimed = head.readBigUInt64LE(368)
  if (head.readUInt32LE(360) !== sectorBytes || blockBytes !== blockBytesOnly) {
    return unsupported(`VDI with blocks of ${blockBytes} bytes`)
  }
  const sizeBytes = sizeOf(claimed)
  if (sizeBytes === null || claimed > BigInt(blockCount) * BigInt(blockBytes)) {
    return damaged(`its header claims ${claimed} bytes in ${blockCount} blocks`)
  }
  if (blockCount > blockCountMax) return unsupported('VDI of more than 16 TiB')
  if (head.readUInt32LE(340) + blockCount * 4 > fileSize) {
    return damaged('its block map lies behind its end; it is cut off')
  }
  return readable('vdi', Math.ceil(sizeBytes / sectorBytes) * sectorBytes)
}

const unsupported = (problem: string): ImageProbe => ({
  kind: 'unsupported',
  format: 'vdi',
  problem,
})
