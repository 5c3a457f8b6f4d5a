// The region table and the metadata of a VHDX image. Its log is not looked at: QEMU finds out
// whether it must be replayed, and refuses to when the image is opened for reading only.
import type { FileRange } from './file_claims.ts'
import { type ImageFile, sizeOf } from './image_file.ts'
import { type ImageProbe, readable } from './image_format.ts'

const regionTableOffsets = [192 * 1024, 256 * 1024]
const headerTableBytes = 64 * 1024
const entryBytes = 32
const regionEntriesMax = 2047
const metadataRegion = guid('8b7ca206-4790-4b9a-b8fe-575f050f886e')
const tableRegion = guid('2dc27766-f623-4200-9d64-115e9bfd4a08')
const parametersItem = guid('caa16737-fa36-4d43-b3b6-33f0aa44e76b')
const sizeItem = guid('2fa54224-cd1b-4876-b211-5dbed83bf4b8')
const sectorItem = guid('8141bf1d-a96f-4709-ba47-f233a8faab5f')
const itemsWanted = [parametersItem, sizeItem, sectorItem]
const parentFlag = 2
const blockBytesMin = 2 ** 20
const blockBytesMax = 2 ** 28
const sectorBytes = 512
/** The limit of the format. */
export const vhdxBytesMax = 64 * 2 ** 40
/** A table of 64 TiB in blocks of 1 MiB, which QEMU holds in memory, is four times as long. */
const tableBytesMax = 128 * 2 ** 20

export const isVhdx = (head: Buffer): boolean => head.subarray(0, 8).equals(Buffer.from('vhdxfile'))

interface Region {
  offset: number
  sizeBytes: number
}

export interface VhdxLayout {
  tableOffset: number
  tableBytes: number
  blockBytes: number
  sectorBytes: number
  /** Not yet judged. */
  claimedBytes: bigint
  hasParent: boolean
  /** Where the metadata lie. */
  reserved: FileRange[]
}

export async function probeVhdx(file: ImageFile): Promise<ImageProbe> {
  const layout = await readVhdxLayout(file)
  if (typeof layout === 'string') return damaged(layout)
  const { tableOffset, tableBytes, claimedBytes } = layout
  if (tableBytes > tableBytesMax) return unsupported('VHDX with a block table above 128 MiB')
  if (tableOffset + tableBytes > file.sizeBytes) {
    return damaged('its block table lies behind its end; it is cut off')
  }
  if (layout.sectorBytes !== sectorBytes) {
    return unsupported(`VHDX with sectors of ${layout.sectorBytes} bytes`)
  }
  if (layout.hasParent) {
    return unsupported('a VHDX that holds only the differences to another one')
  }
  const sizeBytes = sizeOf(claimedBytes)
  if (sizeBytes === null || sizeBytes > vhdxBytesMax || sizeBytes % sectorBytes !== 0) {
    return damaged(`its VHDX metadata claims ${claimedBytes} bytes`)
  }
  return readable('vhdx', sizeBytes)
}

/** Where the block table is and what it counts, or what is wrong. */
export async function readVhdxLayout(file: ImageFile): Promise<VhdxLayout | string> {
  const regions = await readRegions(file)
  if (!regions) return 'both region tables of its VHDX header are damaged'
  const metadata = regions.get(metadataRegion)
  const table = regions.get(tableRegion)
  if (!metadata || !table) return 'its VHDX region table names no metadata or no block table'
  const items = await readMetadata(file, metadata)
  const parameters = items?.get(parametersItem)
  const size = items?.get(sizeItem)
  const sector = items?.get(sectorItem)
  const short = [parameters, size, sector].some((item) => !item || item.length < 8)
  if (!parameters || !size || !sector || short) return 'its VHDX metadata is damaged'
  const blockBytes = parameters.readUInt32LE(0)
  const isPower = blockBytes >= blockBytesMin && (blockBytes & (blockBytes - 1)) === 0
  const logicalBytes = sector.readUInt32LE(0)
  if (!isPower || blockBytes > blockBytesMax || ![512, 4096].includes(logicalBytes)) {
    return `its VHDX metadata claims blocks of ${blockBytes} bytes, sectors of ${logicalBytes}`
  }
  return {
    ...{ tableOffset: table.offset, tableBytes: table.sizeBytes },
    ...{ blockBytes, sectorBytes: logicalBytes, claimedBytes: size.readBigUInt64LE() },
    hasParent: (parameters.readUInt32LE(4) & parentFlag) !== 0,
    reserved: [{ offset: metadata.offset, sizeBytes: metadata.sizeBytes }],
  }
}

async function readRegions(file: ImageFile): Promise<Map<string, Region> | null> {
  for (const offset of regionTableOffsets) {
    const table = await file.read(offset, headerTableBytes)
    if (table.length < headerTableBytes || table.toString('latin1', 0, 4) !== 'regi') continue
    const count = table.readUInt32LE(8)
    if (count > regionEntriesMax) continue
    const regions = new Map<string, Region>()
    for (let index = 0; index < count; index++) {
      const at = 16 + index * entryBytes
      const start = sizeOf(table.readBigUInt64LE(at + 16))
      if (start === null) return null
      const region = { offset: start, sizeBytes: table.readUInt32LE(at + 24) }
      regions.set(table.toString('hex', at, at + 16), region)
    }
    return regions
  }
  return null
}

/** The first bytes of each item. */
async function readMetadata(file: ImageFile, region: Region): Promise<Map<string, Buffer> | null> {
  const table = await file.read(region.offset, headerTableBytes)
  if (table.length < headerTableBytes || table.toString('latin1', 0, 8) !== 'metadata') return null
  const count = table.readUInt16LE(10)
  if (count > regionEntriesMax) return null
  const items = new Map<string, Buffer>()
  for (let index = 0; index < count; index++) {
    const at = 32 + index * entryBytes
    const item = table.toString('hex', at, at + 16)
    if (!itemsWanted.includes(item)) continue
    items.set(item, await file.read(region.offset + table.readUInt32LE(at + 16), 8))
  }
  return items
}

/** As the file holds it, in hex: the first three groups are little-endian. */
function guid(text: string): string {
  const [a = '', b = '', c = '', ...rest] = text.split('-')
  const turned = [a, b, c].map((group) => Buffer.from(group, 'hex').reverse().toString('hex'))
  return [...turned, ...rest].join('')
}

const damaged = (problem: string): ImageProbe => ({ kind: 'damaged', format: 'vhdx', problem })
const unsupported = (problem: string): ImageProbe => ({
  kind: 'unsupported',
  format: 'vhdx',
  problem,
})
