// What an image file is, by its first bytes, without any program of QEMU: an
// inventory of thousands of images must not start thousands of processes. The
// header fields are only looked at here; QEMU itself judges the whole image later.
import { open } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'

export type ReadableFormat = 'raw' | 'qcow2'

/** What the header says. `problem` tells why it cannot be read, in words for the user. */
export type ImageProbe =
  | { kind: 'readable'; format: ReadableFormat; sizeBytes: number; backing: Backing | null }
  | { kind: 'unsupported'; format: string; problem: string }
  | { kind: 'damaged'; problem: string }

export interface Backing {
  path: string
  /** The format the overlay names for it, or null. */
  format: string | null
}

// Long enough for a qcow2 header with its extensions and the name of a backing file.
const headBytes = 64 * 1024
const backingFormatExtension = 0xe2792aca
const incompatibleExternalData = 4n

const otherMagics: { format: string; offset: number; magic: Buffer }[] = [
  { format: 'vmdk', offset: 0, magic: Buffer.from('KDMV') },
  { format: 'vmdk', offset: 0, magic: Buffer.from('COWD') },
  { format: 'vmdk', offset: 0, magic: Buffer.from('# Disk DescriptorFile') },
  { format: 'vhdx', offset: 0, magic: Buffer.from('vhdxfile') },
  { format: 'vhd', offset: 0, magic: Buffer.from('conectix') },
  { format: 'vdi', offset: 64, magic: Buffer.from([0x7f, 0x10, 0xda, 0xbe]) },
  { format: 'qed', offset: 0, magic: Buffer.from('QED\0') },
  { format: 'luks', offset: 0, magic: Buffer.from('LUKS\xba\xbe', 'latin1') },
]
const vhdFooterBytes = 512

/** Errors: those of the file system, as they are. */
export async function probeImage(path: string): Promise<ImageProbe> {
  const file = await open(path, 'r')
  try {
    const { size } = await file.stat()
    const head = Buffer.alloc(Math.min(headBytes, size))
    await file.read(head, 0, head.length, 0)
    if (head.subarray(0, 4).equals(Buffer.from('QFI\xfb', 'latin1'))) {
      return probeQcow2(head, size, path)
    }
    const other = otherMagics.find(({ offset, magic }) =>
      head.subarray(offset, offset + magic.length).equals(magic),
    )
    if (other) return unsupported(other.format)
    if (size >= vhdFooterBytes) {
      // A VHD of fixed size is raw with a footer; read as raw it would be 512 bytes too long.
      const footer = Buffer.alloc(8)
      await file.read(footer, 0, 8, size - vhdFooterBytes)
      if (footer.equals(Buffer.from('conectix'))) return unsupported('vhd')
    }
    return { kind: 'readable', format: 'raw', sizeBytes: size, backing: null }
  } finally {
    await file.close()
  }
}

function probeQcow2(head: Buffer, fileSize: number, path: string): ImageProbe {
  if (head.length < 72) return { kind: 'damaged', problem: 'its qcow2 header is cut off' }
  const version = head.readUInt32BE(4)
  if (version !== 2 && version !== 3) {
    return { kind: 'unsupported', format: 'qcow2', problem: `qcow2 version ${version}` }
  }
  if (head.readUInt32BE(32) !== 0) {
    return { kind: 'unsupported', format: 'qcow2', problem: 'encrypted qcow2' }
  }
  if (version === 3 && head.length >= 80 && head.readBigUInt64BE(72) & incompatibleExternalData) {
    return { kind: 'unsupported', format: 'qcow2', problem: 'qcow2 with an external data file' }
  }
  const sizeBytes = head.readBigUInt64BE(24)
  const tableEnd = head.readBigUInt64BE(40) + BigInt(head.readUInt32BE(36)) * 8n
  if (sizeBytes > BigInt(Number.MAX_SAFE_INTEGER)) {
    return { kind: 'damaged', problem: `its header claims ${sizeBytes} bytes` }
  }
  if (tableEnd > BigInt(fileSize)) {
    return { kind: 'damaged', problem: 'its cluster table lies behind its end; it is cut off' }
  }
  const backing = backingOf(head, version, path)
  if (backing === 'damaged') return { kind: 'damaged', problem: 'its backing name is cut off' }
  return { kind: 'readable', format: 'qcow2', sizeBytes: Number(sizeBytes), backing }
}

function backingOf(head: Buffer, version: number, path: string): Backing | null | 'damaged' {
  const offset = head.readBigUInt64BE(8)
  const length = head.readUInt32BE(16)
  if (offset === 0n) return null
  if (length > 1023 || offset + BigInt(length) > BigInt(head.length)) return 'damaged'
  const name = head.toString('utf8', Number(offset), Number(offset) + length)
  const plain = name.startsWith('file:') ? name.slice('file:'.length) : name
  return { path: resolve(dirname(path), plain), format: backingFormat(head, version) }
}

function backingFormat(head: Buffer, version: number): string | null {
  let at = version === 3 && head.length >= 104 ? head.readUInt32BE(100) : 72
  while (at + 8 <= head.length) {
    const type = head.readUInt32BE(at)
    const length = head.readUInt32BE(at + 4)
    if (type === 0) return null
    if (type === backingFormatExtension) return head.toString('latin1', at + 8, at + 8 + length)
    at += 8 + Math.ceil(length / 8) * 8
  }
  return null
}

const unsupported = (format: string): ImageProbe => ({
  kind: 'unsupported',
  format,
  problem: `format ${format}`,
})
