// What a restore has to know of the formats that QEMU writes: how an image is made, and which disks
// it cannot hold. Raw images are written without QEMU.
import { BackupError } from '@blockferry/errors'
import type { ImageFormatName } from '@blockferry/proto'

export type QemuFormat = Exclude<ImageFormatName, 'raw'>

interface FormatFacts {
  /** QEMU's name of it. */
  driver: string
  /** Parameters of `qemu-img create`. */
  options: string[]
  /** The largest disk, and in words why. */
  bytesMax: number
  limit: string
}

const gibibyte = 2 ** 30

const facts: Record<QemuFormat, FormatFacts> = {
  qcow2: { driver: 'qcow2', options: [], bytesMax: 2 ** 51, limit: '2 PiB' },
  vmdk: {
    driver: 'vmdk',
    options: ['-o', 'subformat=monolithicSparse'],
    // Sectors of the file are counted in 32 bits, those of its tables too.
    bytesMax: 2047 * gibibyte,
    limit: '2047 GiB',
  },
  vhd: {
    driver: 'vpc',
    // Otherwise the size is rounded up to whole cylinders, and the disk is another one.
    options: ['-o', 'subformat=dynamic,force_size=on'],
    bytesMax: 2040 * gibibyte,
    limit: '2040 GiB',
  },
  vhdx: {
    driver: 'vhdx',
    options: ['-o', 'subformat=dynamic'],
    bytesMax: 64 * 1024 * gibibyte,
    limit: '64 TiB',
  },
  // QEMU holds the map of all blocks in memory; a backup reads no larger one either.
  vdi: { driver: 'vdi', options: [], bytesMax: 16 * 1024 * gibibyte, limit: '16 TiB' },
}

/** QEMU's formats count in sectors: what is added to a disk of another size reads as zeroes. */
const sectorBytes = 512

export const qemuDriver = (format: ImageFormatName): string =>
  format === 'raw' ? 'raw' : facts[format].driver

/** Parameters of qemu-img that make an empty image for a disk of `sizeBytes`. */
export const createParameters = (format: QemuFormat, path: string, sizeBytes: number): string[] => {
  const { driver, options } = facts[format]
  const size = Math.ceil(sizeBytes / sectorBytes) * sectorBytes
  return ['create', '-q', '-f', driver, ...options, path, String(size)]
}

/** Errors: DISK_FORMAT_UNSUPPORTED. */
export function assertFits(format: ImageFormatName, disk: string, sizeBytes: number): void {
  if (format === 'raw') return
  if (format === 'vmdk' && sizeBytes === 0) {
    throw new BackupError(
      'DISK_FORMAT_UNSUPPORTED',
      `restore disk ${disk} as vmdk: it has 0 bytes, and a VMDK holds at least a sector; restore it as raw or qcow2`,
      { disk, format, size: '0' },
    )
  }
  if (sizeBytes <= facts[format].bytesMax) return
  const { limit } = facts[format]
  throw new BackupError(
    'DISK_FORMAT_UNSUPPORTED',
    `restore disk ${disk} as ${format}: it has ${sizeBytes} bytes, and an image of format ${format} holds at most ${limit}; restore it as ${format === 'vhd' ? 'vhdx, ' : ''}qcow2 or raw`,
    { disk, format, size: String(sizeBytes), limit },
  )
}
