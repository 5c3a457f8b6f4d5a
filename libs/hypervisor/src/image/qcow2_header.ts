// The header of a qcow2 image: its size, the file below it, and the file that holds its data.
import { sizeOf } from './image_file.ts'
import { type Backing, type ImageProbe, type Part, readable } from './image_format.ts'

const backingFormatExtension = 0xe2792aca
const dataFileExtension = 0x44415441
const incompatibleExternalData = 4n
const headerBytesV2 = 72
const headerBytesV3 = 104
const nameBytesMax = 1023

export const isQcow2 = (head: Buffer): boolean =>
  head.subarray(0, 4).equals(Buffer.from('QFI\xfb', 'latin1'))

export function probeQcow2(head: Buffer, fileSize: number): ImageProbe {
  const damaged = (problem: string): ImageProbe => ({ kind: 'damaged', format: 'qcow2', problem })
  if (head.length < headerBytesV2) return damaged('its qcow2 header is cut off')
  const version = head.readUInt32BE(4)
  if (version !== 2 && version !== 3) return unsupported(`qcow2 version ${version}`)
  if (head.readUInt32BE(32) !== 0) return unsupported('encrypted qcow2')
  if (version === 3 && head.length < headerBytesV3) return damaged('its qcow2 header is cut off')
  const claimed = head.readBigUInt64BE(24)
  const sizeBytes = sizeOf(claimed)
  if (sizeBytes === null) return damaged(`its header claims ${claimed} bytes`)
  const tableEnd = head.readBigUInt64BE(40) + BigInt(head.readUInt32BE(36)) * 8n
  if (tableEnd > BigInt(fileSize)) {
    return damaged('its cluster table lies behind its end; it is cut off')
  }
  const extensions = extensionsOf(head, version)
  const backing = backingOf(head, extensions)
  if (backing === 'damaged') return damaged('its backing name is cut off')
  const parts: Part[] = []
  if (version === 3 && head.readBigUInt64BE(72) & incompatibleExternalData) {
    const name = extensions.get(dataFileExtension)?.toString('utf8')
    if (!name) return unsupported('qcow2 whose external data file is not named in it')
    // QEMU makes it as long as the disk, and reads zeroes behind the end of one that was cut off.
    parts.push({ name, holds: 'plain', sizeBytes })
  }
  return readable('qcow2', sizeBytes, { backing, parts })
}

const unsupported = (problem: string): ImageProbe => ({
  kind: 'unsupported',
  format: 'qcow2',
  problem,
})

function backingOf(head: Buffer, extensions: Map<number, Buffer>): Backing | null | 'damaged' {
  const offset = head.readBigUInt64BE(8)
  const length = head.readUInt32BE(16)
  if (offset === 0n) return null
  if (length > nameBytesMax || offset + BigInt(length) > BigInt(head.length)) return 'damaged'
  const name = head.toString('utf8', Number(offset), Number(offset) + length)
  return { name, format: extensions.get(backingFormatExtension)?.toString('latin1') ?? null }
}

function extensionsOf(head: Buffer, version: number): Map<number, Buffer> {
  const found = new Map<number, Buffer>()
  let at = version === 3 ? head.readUInt32BE(100) : headerBytesV2
  while (at + 8 <= head.length) {
    const type = head.readUInt32BE(at)
    const length = head.readUInt32BE(at + 4)
    if (type === 0) break
    found.set(type, head.subarray(at + 8, at + 8 + length))
    at += 8 + Math.ceil(length / 8) * 8
  }
  return found
}
