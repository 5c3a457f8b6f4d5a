// A list of changed blocks from outside: {"grain": 65536, "size": 1073741824, "extents":
// [[offset, length], …]}, or {"disks": {"vda": {…}, …}}. Everything is checked before a run starts.
import { readFileSync } from 'node:fs'
import { argumentInvalid, BackupError } from '@blockferry/errors'
import type { move } from '@blockferry/proto'
import { limits } from './config.ts'

export interface ChangedBlocks {
  /** Empty: the only disk. */
  disk: string
  /** Size of the disk that the list is for; null when it does not say. */
  sizeBytes: number | null
  supplied: move.SuppliedChanges
}

/** Errors: ARGUMENT_INVALID (not such a file), CHANGED_BLOCKS_INVALID (a field of it). */
export function readChangedBlocks(file: string): ChangedBlocks[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    throw argumentInvalid('--changed-blocks', file, `the file cannot be read (${code})`)
  }
  return parseChangedBlocks(text, file)
}

export function parseChangedBlocks(text: string, file: string): ChangedBlocks[] {
  let list: unknown
  try {
    list = JSON.parse(text)
  } catch (thrown) {
    throw argumentInvalid('--changed-blocks', file, `not JSON: ${(thrown as Error).message}`)
  }
  if (!isObject(list)) throw invalid(file, '', 'give an object with extents or disks')
  if (!Object.hasOwn(list, 'disks')) return [parseDisk(list, '', file, '')]
  const { disks } = list
  if (!isObject(disks)) throw invalid(file, 'disks', 'give an object: disk id to extents')
  return Object.entries(disks).map(([disk, entry]) => {
    const at = `disks[${JSON.stringify(disk)}]`
    if (disk === '') throw invalid(file, at, 'name the disk')
    if (!isObject(entry)) throw invalid(file, at, 'give an object with extents')
    return parseDisk(entry, disk, file, `${at}.`)
  })
}

function parseDisk(
  entry: Record<string, unknown>,
  disk: string,
  file: string,
  at: string,
): ChangedBlocks {
  const { grain = 1, size = null, extents } = entry
  if (!isCount(grain) || grain === 0) throw invalid(file, `${at}grain`, 'give bytes, at least 1')
  if (size !== null && !isCount(size)) throw invalid(file, `${at}size`, 'give bytes, 0 or more')
  if (!Array.isArray(extents))
    throw invalid(file, `${at}extents`, 'give a list of [offset, length]')
  const supplied: move.SuppliedChanges = { disk, extents: [] }
  let end = 0
  extents.forEach((extent: unknown, index) => {
    const field = `${at}extents[${index}]`
    const [offset, length] = pairOf(extent, file, field)
    if (offset % grain !== 0) throw invalid(file, field, `the offset is no multiple of ${grain}`)
    if (offset < end) {
      throw invalid(
        file,
        field,
        `it begins before ${end}, where the one before ends; sort the list`,
      )
    }
    // Lists in whole grains may pass the end of a disk that is no multiple of one.
    const pastEnd = size === null ? 0 : Math.max(0, offset + length - size)
    if (pastEnd >= grain || (size !== null && offset > size)) {
      throw invalid(file, field, `it ends at ${offset + length}, behind the disk's size ${size}`)
    }
    end = offset + length
    append(supplied.extents, offset, length - pastEnd)
  })
  if (supplied.extents.length > limits.changedExtentsMax) {
    const advice = `more than ${limits.changedExtentsMax} extents; make the list with a larger grain`
    throw invalid(file, `${at}extents`, advice)
  }
  return { disk, sizeBytes: size, supplied }
}

function pairOf(extent: unknown, file: string, field: string): [number, number] {
  if (!Array.isArray(extent) || extent.length !== 2) {
    throw invalid(file, field, 'give [offset, length]')
  }
  const [offset, length] = extent
  if (!isCount(offset) || !isCount(length) || !Number.isSafeInteger(offset + length)) {
    throw invalid(file, field, 'give two whole numbers of bytes, 0 or more')
  }
  return [offset, length]
}

/** Neighbours become one extent, so that long lists stay small on the wire. */
function append(extents: move.ChangedExtent[], offset: number, length: number): void {
  if (length === 0) return
  const last = extents.at(-1)
  if (last && last.byteOffset + last.sizeBytes === BigInt(offset)) {
    last.sizeBytes += BigInt(length)
  } else {
    extents.push({ byteOffset: BigInt(offset), sizeBytes: BigInt(length) })
  }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isCount = (value: unknown): value is number =>
  Number.isSafeInteger(value) && Number(value) >= 0

function invalid(file: string, field: string, advice: string): BackupError {
  const what = field === '' ? 'the list' : field
  return new BackupError(
    'CHANGED_BLOCKS_INVALID',
    `read the changed blocks of ${file}: ${what}: ${advice}`,
    { file, field },
  )
}
