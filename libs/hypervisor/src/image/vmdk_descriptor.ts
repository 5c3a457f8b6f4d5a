// The text that describes a VMDK disk:
//
//   # Disk DescriptorFile
//   CID=fffffffe
//   parentCID=ffffffff
//   createType="monolithicFlat"
//   RW 8192 FLAT "disk-flat.vmdk" 0
//
// It is read at least as strictly as QEMU reads it: QEMU passes over extents that it does not know,
// and the disk would shrink in silence.

export interface DescribedExtent {
  access: string
  sectors: number
  /** Null for what is neither plain bytes nor a sparse file. */
  kind: 'flat' | 'sparse' | null
  name: string
  offsetSectors: number
  /** As it is written, for messages. */
  line: string
}

export interface Descriptor {
  createType: string
  hasParent: boolean
  extents: DescribedExtent[]
}

const kinds: Record<string, 'flat' | 'sparse'> = { FLAT: 'flat', VMFS: 'flat', SPARSE: 'sparse' }
const parentNone = 'ffffffff'
/** 2 TiB in extents of 2 GiB are 1,024. */
const extentCountMax = 2048
const sectorsMax = 2 ** 44

/** The descriptor, or what is wrong with it. */
export function parseDescriptor(bytes: Buffer): Descriptor | string {
  const end = bytes.indexOf(0)
  const text = bytes.toString('latin1', 0, end < 0 ? bytes.length : end)
  const lines = text.split(/[\r\n]+/).map((line) => line.trim())
  const createType = settingOf(lines, 'createType')
  if (!createType) return 'its descriptor has no createType'
  const extents: DescribedExtent[] = []
  for (const line of lines) {
    if (!/^(RW|RDONLY|NOACCESS)\b/i.test(line)) continue
    const extent = parseExtent(line)
    if (typeof extent === 'string') return extent
    extents.push(extent)
    if (extents.length > extentCountMax) return `its descriptor has over ${extentCountMax} extents`
  }
  if (extents.length === 0) return 'its descriptor has no extents'
  const total = extents.reduce((sum, { sectors }) => sum + sectors, 0)
  if (total > sectorsMax) return `its descriptor claims ${total} sectors`
  const parent = settingOf(lines, 'parentCID')?.toLowerCase() ?? parentNone
  const named = lines.some((line) => /parentFileNameHint/i.test(line))
  return { createType, hasParent: parent !== parentNone || named, extents }
}

function parseExtent(line: string): DescribedExtent | string {
  const parts = /^(\S+)\s+(\d{1,16})\s+(\S+)(?:\s+"([^"]*)"(?:\s+(\d{1,16}))?)?/.exec(line)
  const shown = line.slice(0, 100)
  if (!parts) return `its descriptor has the line ${JSON.stringify(shown)}`
  const [, access = '', sectors = '', word = '', name = '', offset = '0'] = parts
  const kind = kinds[word] ?? null
  // In the text of the descriptor every byte is one character; names are UTF-8.
  const decoded = Buffer.from(name, 'latin1').toString('utf8')
  return {
    ...{ access, kind, name: decoded, line: shown },
    ...{ sectors: Number(sectors), offsetSectors: Number(offset) },
  }
}

function settingOf(lines: string[], key: string): string | null {
  for (const line of lines) {
    const [name = '', ...rest] = line.split('=')
    if (name.trim().toLowerCase() === key.toLowerCase()) {
      return rest
        .join('=')
        .trim()
        .replace(/^"(.*)"$/, '$1')
    }
  }
  return null
}
