// The footer of a VHD image and, when it is dynamic, the header behind the footer's copy.
//
// Two sizes are in it: the number of bytes, and cylinders × heads × sectors. Most programs go by the
// bytes; QEMU goes by the geometry unless it knows the program that made the image. An image whose
// sizes differ would lose its end in silence, so it is either read as plain bytes or refused.
import { type ImageFile, sizeOf } from './image_file.ts'
import { type ImageProbe, readable } from './image_format.ts'

export const footerBytes = 512
const cookie = Buffer.from('conectix')
const headerCookie = Buffer.from('cxsparse')
const headerBytes = 1024
const sectorBytes = 512
const typeFixed = 2
const typeDynamic = 3
const typeDifferencing = 4
/** Programs whose images QEMU measures in bytes. */
const creatorsOfBytes = ['win ', 'qem2', 'd2v ', 'tap\0', 'CTXS']
/** Cylinders × heads × sectors when the disk is larger than a geometry can say. */
const geometrySectorsMax = 65535 * 16 * 255
/** 2040 GiB: sectors are counted in 32 bits, and the last 16 Mi of them are reserved. */
export const vhdBytesMax = 0xff000000 * sectorBytes
/** 2040 GiB in the smallest blocks that are in use, 512 KiB; the table is held in memory. */
const entryCountMax = 4 * 2 ** 20

export const isVhd = (footer: Buffer): boolean => footer.subarray(0, 8).equals(cookie)

/** `head` and `footer` are the first and the last bytes of the file; at least one has the cookie. */
export async function probeVhd(head: Buffer, footer: Buffer, file: ImageFile): Promise<ImageProbe> {
  const copy = isVhd(head) ? head.subarray(0, footerBytes) : footer
  if (copy.length < footerBytes) return damaged('its VHD footer is cut off')
  if (!checksumFits(copy, 64)) return damaged('the checksum of its VHD footer is wrong')
  const type = copy.readUInt32BE(60)
  if (type === typeDifferencing) {
    return unsupported('a VHD that holds only the differences to another one')
  }
  const claimed = copy.readBigUInt64BE(48)
  const sizeBytes = sizeOf(claimed)
  if (sizeBytes === null || sizeBytes > vhdBytesMax || sizeBytes % sectorBytes !== 0) {
    return damaged(`its VHD footer claims ${claimed} bytes`)
  }
  if (type === typeFixed && !isVhd(head)) {
    if (sizeBytes !== file.sizeBytes - footerBytes) {
      return damaged(
        `its VHD footer claims ${sizeBytes} bytes before it, there are ${file.sizeBytes - footerBytes}`,
      )
    }
    return readable('vhd', sizeBytes, { isPlain: true })
  }
  if (type !== typeDynamic || !isVhd(head)) return unsupported(`VHD of type ${type}`)
  return await probeDynamic(copy, sizeBytes, file)
}

async function probeDynamic(
  footer: Buffer,
  sizeBytes: number,
  file: ImageFile,
): Promise<ImageProbe> {
  const offset = sizeOf(footer.readBigUInt64BE(16))
  const header = offset === null ? Buffer.alloc(0) : await file.read(offset, headerBytes)
  if (header.length < headerBytes || !header.subarray(0, 8).equals(headerCookie)) {
    return damaged('its VHD header is cut off')
  }
  if (!checksumFits(header, 36)) return damaged('the checksum of its VHD header is wrong')
  const tableOffset = header.readBigUInt64BE(16)
  const entryCount = header.readUInt32BE(28)
  const blockBytes = header.readUInt32BE(32)
  const isPower = blockBytes >= sectorBytes && (blockBytes & (blockBytes - 1)) === 0
  if (!isPower || entryCount > entryCountMax || entryCount * blockBytes < sizeBytes) {
    return damaged(`its VHD header claims ${entryCount} blocks of ${blockBytes} bytes`)
  }
  if (tableOffset + BigInt(entryCount) * 4n > BigInt(file.sizeBytes)) {
    return damaged('its block table lies behind its end; it is cut off')
  }
  const seen = bytesSeenByQemu(footer, sizeBytes)
  if (seen !== sizeBytes) {
    return unsupported(
      `a dynamic VHD of ${sizeBytes} bytes whose geometry, which QEMU goes by, says ${seen} bytes,`,
    )
  }
  return readable('vhd', sizeBytes)
}

function bytesSeenByQemu(footer: Buffer, sizeBytes: number): number {
  const creator = footer.toString('latin1', 28, 32)
  if (creatorsOfBytes.includes(creator)) return sizeBytes
  const [cylinders, heads, sectors] = [footer.readUInt16BE(56), footer[58] ?? 0, footer[59] ?? 0]
  const total = cylinders * heads * sectors
  return total === geometrySectorsMax ? sizeBytes : total * sectorBytes
}

/** The complement of the sum of all bytes but those of the checksum itself. */
function checksumFits(header: Buffer, at: number): boolean {
  let sum = 0
  for (const [index, byte] of header.entries()) {
    if (index < at || index >= at + 4) sum = (sum + byte) >>> 0
  }
  return ~sum >>> 0 === header.readUInt32BE(at)
}

const damaged = (problem: string): ImageProbe => ({ kind: 'damaged', format: 'vhd', problem })
const unsupported = (problem: string): ImageProbe => ({
  kind: 'unsupported',
  format: 'vhd',
  problem,
})
