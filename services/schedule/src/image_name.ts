import { createHash } from 'node:crypto'
import type { ImageFormatName } from '@blockferry/proto'

const nameSizeMax = 120

/**
 * A file name for a restored disk: letters, digits, `.`, `_` and `-` stay, every other byte
 * becomes `%` and two hex digits. A long name is cut and ends with its digest. A disk whose id is
 * a file name of the same format keeps it: `vda.qcow2`, not `vda.qcow2.qcow2`.
 */
export function imageName(disk: string, extension: ImageFormatName): string {
  const stem =
    disk.length > extension.length + 1 ? disk.replace(new RegExp(`\\.${extension}$`), '') : disk
  const safe = [...Buffer.from(stem)].map((byte, index) => safeByte(byte, index)).join('')
  if (safe.length <= nameSizeMax) return `${safe || '%'}.${extension}`
  const digest = createHash('sha256').update(disk).digest('hex').slice(0, 16)
  return `${safe.slice(0, nameSizeMax - digest.length - 1)}-${digest}.${extension}`
}

function safeByte(byte: number, index: number): string {
  const character = String.fromCharCode(byte)
  // A name that begins with a dot is hidden, one with a dash looks like an option.
  const plain = index === 0 ? /[A-Za-z0-9_]/ : /[A-Za-z0-9._-]/
  return plain.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
}
