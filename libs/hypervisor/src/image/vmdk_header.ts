// A VMDK image: either a text that names the files with the data, or a sparse file with that text
// inside. A sparse file without it is one extent of several and no disk by itself.
import type { ImageFile } from './image_file.ts'
import { sizeOf } from './image_file.ts'
import { type ImageProbe, type Part, readable } from './image_format.ts'
import { type Descriptor, parseDescriptor } from './vmdk_descriptor.ts'

const sparseMagic = Buffer.from('KDMV')
const descriptorMagic = Buffer.from('# Disk DescriptorFile')
const headerBytes = 79
const sectorBytes = 512
/** What QEMU looks for a parent in, and as much as a descriptor of ours may have. */
const descriptorBytesMin = 20 * sectorBytes
const descriptorBytesMax = 256 * 1024
const versionMax = 3
const entriesPerTable = 512
const grainSectorsMax = 2 ** 16
/** 4 bytes each, held in memory twice. */
const directoryEntriesMax = 2 ** 20
/** The directory is named in a second header near the end of the file. */
const directoryAtEnd = 0xffffffffffffffffn
const oneFileTypes = ['monolithicSparse', 'streamOptimized']

export const isVmdk = (head: Buffer): boolean =>
  head.subarray(0, 4).equals(sparseMagic) ||
  head.subarray(0, descriptorMagic.length).equals(descriptorMagic)

export async function probeVmdk(head: Buffer, file: ImageFile): Promise<ImageProbe> {
  if (head.subarray(0, 4).equals(sparseMagic)) return await probeSparse(head, file)
  if (file.sizeBytes > descriptorBytesMax) return damaged('its descriptor is too long')
  const descriptor = parseDescriptor(await file.read(0, descriptorBytesMax))
  if (typeof descriptor === 'string') return damaged(descriptor)
  return (
    refused(descriptor) ??
    readable('vmdk', sizeOfExtents(descriptor), { parts: partsOf(descriptor) })
  )
}

/** Bytes that a sparse file holds as an extent, or what is wrong with it. */
export async function probeSparseExtent(file: ImageFile): Promise<number | string> {
  return sparseBytes(await file.read(0, sectorBytes), file.sizeBytes)
}

async function probeSparse(head: Buffer, file: ImageFile): Promise<ImageProbe> {
  const sizeBytes = sparseBytes(head, file.sizeBytes)
  if (typeof sizeBytes === 'string') return damaged(sizeBytes)
  const offset = sizeOf(head.readBigUInt64LE(28) * BigInt(sectorBytes))
  const length = sizeOf(head.readBigUInt64LE(36) * BigInt(sectorBytes))
  if (offset === null || length === null || length > descriptorBytesMax) {
    return damaged('its descriptor is too long')
  }
  const text = await file.read(offset, Math.max(length, descriptorBytesMin))
  // QEMU leaves room for one in each extent.
  if (offset === 0 || text.length === 0 || text[0] === 0) {
    return unsupported('one extent of a VMDK (name the small file that describes the disk), which')
  }
  const descriptor = parseDescriptor(text)
  if (typeof descriptor === 'string') return damaged(descriptor)
  const why = refused(descriptor)
  if (why) return why
  if (!oneFileTypes.includes(descriptor.createType) || descriptor.extents.length !== 1) {
    return unsupported(`VMDK of type ${descriptor.createType} in a sparse file`)
  }
  return readable('vmdk', sizeBytes)
}

/** QEMU's own limits are far above these, and it takes memory by what the header claims. */
function sparseBytes(head: Buffer, fileSize: number): number | string {
  if (head.length < headerBytes || !head.subarray(0, 4).equals(sparseMagic)) {
    return 'its VMDK header is cut off'
  }
  const version = head.readUInt32LE(4)
  if (version === 0 || version > versionMax) return `its VMDK header has version ${version}`
  const capacity = sizeOf(head.readBigUInt64LE(12) * BigInt(sectorBytes))
  const grain = head.readBigUInt64LE(20)
  const perTable = head.readUInt32LE(44)
  const isPower = grain > 0n && (grain & (grain - 1n)) === 0n && grain <= BigInt(grainSectorsMax)
  if (
    capacity === null ||
    capacity === 0 ||
    !isPower ||
    perTable === 0 ||
    perTable > entriesPerTable
  ) {
    return `its VMDK header claims ${head.readBigUInt64LE(12)} sectors in grains of ${grain}`
  }
  const entries = Math.ceil(capacity / (Number(grain) * sectorBytes * perTable))
  if (entries > directoryEntriesMax) return `its VMDK header claims ${entries} grain tables`
  const directory = head.readBigUInt64LE(56)
  if (directory === directoryAtEnd) return capacity
  if (directory * BigInt(sectorBytes) + BigInt(entries) * 4n > BigInt(fileSize)) {
    return 'its grain directory lies behind its end; it is cut off'
  }
  return capacity
}

function refused({ createType, hasParent, extents }: Descriptor): ImageProbe | null {
  if (hasParent) return unsupported('a VMDK that holds only the differences to another one')
  const odd = extents.find(({ access, kind }) => access !== 'RW' || kind === null)
  return odd ? unsupported(`VMDK of type ${createType} with the extent ${odd.line}`) : null
}

const sizeOfExtents = ({ extents }: Descriptor): number =>
  extents.reduce((sum, { sectors }) => sum + sectors * sectorBytes, 0)

const partsOf = ({ extents }: Descriptor): Part[] =>
  extents.map(({ name, kind, sectors, offsetSectors }) =>
    kind === 'flat'
      ? { name, holds: 'plain', sizeBytes: (offsetSectors + sectors) * sectorBytes }
      : { name, holds: 'vmdk extent', sizeBytes: sectors * sectorBytes },
  )

const damaged = (problem: string): ImageProbe => ({ kind: 'damaged', format: 'vmdk', problem })
const unsupported = (problem: string): ImageProbe => ({
  kind: 'unsupported',
  format: 'vmdk',
  problem,
})
