// A VMDK in one file holds a text with the file's own name. It is made under a temporary name, so
// the name that it is going to have is written into it afterwards.
import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import { BackupError } from '@blockferry/errors'
import { atTarget } from './target_failure.ts'

const sectorBytes = 512
/** Enough for the text that QEMU writes, 10 KiB. */
const textBytesMax = 64 * 1024

const descriptorMagic = Buffer.from('# Disk DescriptorFile')

/** Errors: DISK_FORMAT_UNSUPPORTED for a disk whose data is in other files than the one replaced. */
export async function assertOneFile(disk: string, path: string): Promise<void> {
  const file = await atTarget('open', path, () => open(path, 'r'))
  try {
    const head = Buffer.alloc(descriptorMagic.length)
    await file.read(head, 0, head.length, 0)
    if (!head.equals(descriptorMagic)) return
  } finally {
    await file.close()
  }
  throw new BackupError(
    'DISK_FORMAT_UNSUPPORTED',
    `restore disk ${disk} over its image ${path}: it is a VMDK in several files; restore it to a folder`,
    { disk, target: path },
  )
}

export async function nameVmdk(part: string, path: string): Promise<void> {
  const file = await open(part, 'r+')
  try {
    const header = Buffer.alloc(sectorBytes)
    await file.read(header, 0, header.length, 0)
    const offset = Number(header.readBigUInt64LE(28)) * sectorBytes
    const room = Math.min(textBytesMax, Number(header.readBigUInt64LE(36)) * sectorBytes)
    const area = Buffer.alloc(room)
    await file.read(area, 0, room, offset)
    const text = area.toString('latin1').replace(/\0.*$/s, '')
    // The text is between quotes and has no way to write one inside.
    const own = /^[^"\r\n]+$/.test(basename(path)) ? basename(path) : 'disk.vmdk'
    const name = Buffer.from(own, 'utf8').toString('latin1')
    const named = text.replace(
      /^(RW \d+ SPARSE ").*(")$/m,
      (_, before, after) => before + name + after,
    )
    const written = Buffer.alloc(room)
    if (written.write(named, 'latin1') === named.length) await file.write(written, 0, room, offset)
  } finally {
    await file.close()
  }
}
