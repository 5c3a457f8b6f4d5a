// What can be known of an image before a run starts: that it is there, and its size.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { resolve } from 'node:path'
import { BackupError } from '@blockferry/errors'

export interface Image {
  path: string
  /** Size of the disk inside; null for formats that are not looked into here. */
  sizeBytes: number | null
}

const qcow2Magic = 0x514649fb
/** Of a qcow2 header: the disk's size is the big-endian 64-bit number at byte 24. */
const qcow2SizeAt = 24
const headSize = 32

/** Errors: IMAGE_MISSING, ARGUMENT_INVALID. */
export function readImage(text: string): Image {
  const path = resolve(text)
  let file: number
  try {
    file = openSync(path, 'r')
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    if (code === 'ENOENT') {
      throw new BackupError('IMAGE_MISSING', `open image ${path}: there is no such file`, { path })
    }
    // The mover may be allowed to read what this user may not.
    return { path, sizeBytes: null }
  }
  try {
    const { size } = fstatSync(file)
    const head = Buffer.alloc(headSize)
    const readSize = readSync(file, head, 0, headSize, 0)
    if (readSize === headSize && head.readUInt32BE(0) === qcow2Magic) {
      return { path, sizeBytes: Number(head.readBigUInt64BE(qcow2SizeAt)) }
    }
    return { path, sizeBytes: fstatSync(file).isFile() && isRaw(head) ? size : null }
  } finally {
    closeSync(file)
  }
}

const otherMagics = ['KDMV', 'COWD', '# Disk De', 'conectix', 'vhdxfile', '<<< ']

const isRaw = (head: Buffer): boolean =>
  !otherMagics.some((magic) => head.subarray(0, magic.length).toString('latin1') === magic)
