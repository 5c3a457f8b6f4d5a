// Puts restored images into a QEMU command line: the file names are replaced, and the nodes and
// drives that read them are told the new format.
import type { ImageFormatName } from '@blockferry/proto'
import { qemuDriver } from './image_format.ts'
import {
  formatOptions,
  keepKeys,
  optionValue,
  parseOptions,
  type QemuOptions,
  setValue,
} from './qemu_options.ts'

export interface PlacedImage {
  disk: string
  /** As the command line is to name it. */
  path: string
  format: ImageFormatName
}

/** Options of a format node that mean the same whatever the format is. */
const formatKeys =
  /^(driver|node-name|file|file\..*|discard|detect-zeroes|read-only|auto-read-only|cache\..*|force-share)$/

/** One option of a command line; `value` is null when it has none. */
export interface MachineOption {
  name: string
  value: string | null
}

/**
 * Changes `options` in place. Answers the disks whose place in the command line was found.
 * `images` maps the old file name, as the command line writes it, to the new image.
 */
export function placeDisks(
  options: MachineOption[],
  images: ReadonlyMap<string, PlacedImage>,
): Set<string> {
  const placed = new Set<string>()
  placeInBlockdevs(options, images, placed)
  for (const option of options) {
    const image = placeInDrive(option, images)
    if (image) placed.add(image.disk)
  }
  return placed
}

interface Blockdev {
  option: MachineOption
  parsed: QemuOptions
}

function placeInBlockdevs(
  options: MachineOption[],
  images: ReadonlyMap<string, PlacedImage>,
  placed: Set<string>,
): void {
  const nodes: Blockdev[] = []
  for (const option of options) {
    if (option.name !== '-blockdev' || option.value === null) continue
    nodes.push({ option, parsed: parseOptions(option.value) })
  }
  const gone = new Set<string>()
  for (const node of [...nodes]) {
    for (const entry of node.parsed.entries) {
      const image = /^(file\.)*filename$/.test(entry[0]) ? images.get(String(entry[1])) : undefined
      if (!image) continue
      placed.add(image.disk)
      entry[1] = image.path
      const level = entry[0].slice(0, -'filename'.length)
      setValue(node.parsed, `${level}driver`, 'file')
      setFormat(options, nodes, node, level, image, gone)
      break
    }
  }
  for (const { option, parsed } of nodes) option.value = formatOptions(parsed)
  removeNodes(options, nodes, gone)
}

/** `level` is the dotted prefix of the node that opens the file. */
function setFormat(
  options: MachineOption[],
  nodes: Blockdev[],
  node: Blockdev,
  level: string,
  image: PlacedImage,
  gone: Set<string>,
): void {
  const driver = qemuDriver(image.format)
  if (level !== '') {
    adapt(node.parsed, level.slice(0, -'file.'.length), driver, gone)
    return
  }
  const name = String(optionValue(node.parsed, 'node-name'))
  const reader = nodes.find(({ parsed }) => optionValue(parsed, 'file') === name)
  if (reader) {
    adapt(reader.parsed, '', driver, gone)
    return
  }
  if (image.format === 'raw') return
  // The machine reads the file without a format node: the new node takes over its name.
  const fileName = `restored-${nodes.length}`
  setValue(node.parsed, 'node-name', fileName)
  const entries: [string, unknown][] = [
    ['driver', driver],
    ['node-name', name],
    ['file', fileName],
  ]
  const option = { name: '-blockdev', value: '' }
  const at = options.indexOf(node.option)
  options.splice(at + 1, 0, option)
  nodes.push({ option, parsed: { json: node.parsed.json, entries } })
}

/** Gives the format node at `level` the new format and drops what only the old one knew. */
function adapt(parsed: QemuOptions, level: string, driver: string, gone: Set<string>): void {
  const backing = optionValue(parsed, `${level}backing`)
  if (typeof backing === 'string') gone.add(backing)
  keepKeys(parsed, (key) => !key.startsWith(level) || formatKeys.test(key.slice(level.length)))
  setValue(parsed, `${level}driver`, driver)
}

/** Backing images that a restored image does not need, and the nodes under them. */
function removeNodes(options: MachineOption[], nodes: Blockdev[], gone: Set<string>): void {
  for (const name of gone) {
    const node = nodes.find(({ parsed }) => optionValue(parsed, 'node-name') === name)
    if (!node) continue
    for (const key of ['file', 'backing']) {
      const below = optionValue(node.parsed, key)
      if (typeof below === 'string') gone.add(below)
    }
    const at = options.indexOf(node.option)
    if (at >= 0) options.splice(at, 1)
  }
}

const driveIndex: Record<string, number> = { '-hda': 0, '-hdb': 1, '-hdc': 2, '-hdd': 3, '': 0 }

function placeInDrive(
  option: MachineOption,
  images: ReadonlyMap<string, PlacedImage>,
): PlacedImage | null {
  if (option.value === null) return null
  if (option.name === '-drive') {
    const parsed = parseOptions(option.value)
    const entry = parsed.entries.find(
      ([key, value]) => /^(file|(file\.)*filename)$/.test(key) && images.has(String(value)),
    )
    const image = images.get(String(entry?.[1]))
    if (!entry || !image) return null
    entry[1] = image.path
    keepKeys(parsed, (key) => !/^(backing|encrypt|driver$)/.test(key))
    setValue(parsed, 'format', qemuDriver(image.format))
    option.value = formatOptions(parsed)
    return image
  }
  const index = driveIndex[option.name]
  const image = images.get(option.value)
  if (index === undefined || !image) return null
  option.name = '-drive'
  option.value = formatOptions({
    json: false,
    entries: [
      ['file', image.path],
      ['format', qemuDriver(image.format)],
      ['index', index],
      ['media', 'disk'],
    ],
  })
  return image
}
