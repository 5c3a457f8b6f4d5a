// Whether an image is still what it was when the point began.
//
// A file: the same one (device and inode, so that a replacement by rename counts), of the same size,
// not written since, by its times.
//
// A block device has no times that count. The kernel counts what it writes to it instead, whoever on
// this host asked for it and by whatever way: those counts must stand still, after everything that
// waits in memory was written. Not seen are writes by other hosts to storage that they share.
import { type BigIntStats, readlinkSync, statSync } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { sleep, wallMs } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { isHeld, readDevice } from '../image/block_device.ts'

/** Nanosecond times are kept as text: they do not fit a number, and JSON has no bigint. */
export interface ImageState {
  path: string
  device: string
  inode: string
  sizeBytes: number
  mtimeNs: string
  ctimeNs: string
  /** Null for a file. */
  deviceWrites: string | null
}

// The kernel stamps files by its tick, 4 ms or 10 ms long: two writes within one tick look like one.
// A state is therefore only taken when the last write is older than this.
const tickMs = 30

/** Errors: IMAGE_MISSING, HOST_DENIED. */
export async function rememberState(path: string, signal: AbortSignal): Promise<ImageState> {
  const first = await stateOf(path)
  if (first.deviceWrites !== null) return first
  const age = wallMs() - Number(BigInt(first.ctimeNs) / 1_000_000n)
  if (age >= tickMs) return first
  await sleep(tickMs, signal)
  return await stateOf(path)
}

/** For files that we write to ourselves. Errors: IMAGE_CHANGED. */
export async function assertSameFile(before: ImageState): Promise<void> {
  const now = await stateOf(before.path).catch(() => null)
  if (now && isSameFile(before, now)) return
  throw notWhatItWas(before.path, now ? 'another file took its place' : 'it is gone')
}

/** An image that is open is not the one that was looked at before. */
export const notWhatItWas = (path: string, cause: string): BackupError =>
  new BackupError(
    'IMAGE_CHANGED',
    `open image ${path}: ${cause} since it was looked at; try again when nobody changes the images of the machine`,
    { path, cause },
  )

/** Errors: IMAGE_CHANGED with what changed. */
export async function assertUnchanged(before: ImageState): Promise<void> {
  const now = await stateOf(before.path).catch(() => null)
  const cause = !now
    ? 'it is gone'
    : !isSameFile(before, now)
      ? 'another file took its place'
      : now.sizeBytes !== before.sizeBytes
        ? `its size went from ${before.sizeBytes} to ${now.sizeBytes} bytes`
        : wasWritten(before, now)
          ? 'it was written'
          : null
  if (cause === null) return
  throw new BackupError(
    'IMAGE_CHANGED',
    `read image ${before.path}: ${cause} while it was read; keep the machine off during the backup, or add a stop hook`,
    { path: before.path, cause },
  )
}

const isSameFile = (one: ImageState, other: ImageState): boolean =>
  one.device === other.device && one.inode === other.inode

function wasWritten(before: ImageState, now: ImageState): boolean {
  if (before.deviceWrites !== null) return now.deviceWrites !== before.deviceWrites
  return now.mtimeNs !== before.mtimeNs || now.ctimeNs !== before.ctimeNs
}

/**
 * Refuses a file that any process has open for writing, for programs that take no lock.
 * Best effort: processes of other users are only seen as root, and other machines never.
 * Errors: IMAGE_IN_USE.
 */
export async function assertNoWriter(states: ImageState[]): Promise<void> {
  for (const { path, deviceWrites } of states) {
    if (deviceWrites !== null && (await isHeld(path))) {
      throw imageInUse(path, 'it is mounted, or another device of the kernel uses it')
    }
  }
  const wanted = new Map(states.map((state) => [`${state.device}:${state.inode}`, state.path]))
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    const writer = await writerAmong(pid, wanted)
    if (!writer) continue
    const command = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim()
    throw imageInUse(writer, `process ${pid} (${command}) has it open for writing`)
  }
}

export const imageInUse = (path: string, cause: string): BackupError =>
  new BackupError(
    'IMAGE_IN_USE',
    `read image ${path}: ${cause}; shut the machine down, or back it up with a host that takes snapshots`,
    { path, cause },
  )

async function writerAmong(pid: string, wanted: Map<string, string>): Promise<string | null> {
  const folder = `/proc/${pid}/fd`
  for (const fd of await readdir(folder).catch(() => [])) {
    const path = wanted.get(fileOf(`${folder}/${fd}`))
    if (!path) continue
    const info = await readFile(`/proc/${pid}/fdinfo/${fd}`, 'utf8').catch(() => '')
    const flags = Number.parseInt(/^flags:\s*(\d+)/m.exec(info)?.[1] ?? '0', 8)
    if ((flags & 3) !== 0) return path
  }
  return null
}

// Not by promises: a host has ten thousands of descriptors, and the kernel answers each of these
// calls in microseconds (a machine with 100 processes 35 ms by promises, 13 ms so).
function fileOf(descriptor: string): string {
  try {
    // Most descriptors are sockets and pipes; their links say so without a stat.
    const target = readlinkSync(descriptor)
    if (!target.startsWith('/')) return ''
    return idOf(statSync(descriptor, { bigint: true })).join(':')
  } catch {
    return ''
  }
}

async function stateOf(path: string): Promise<ImageState> {
  try {
    const found = await stat(path, { bigint: true })
    const [device, inode] = idOf(found)
    const times = { mtimeNs: String(found.mtimeNs), ctimeNs: String(found.ctimeNs) }
    if (!found.isBlockDevice()) {
      return { path, device, inode, sizeBytes: Number(found.size), ...times, deviceWrites: null }
    }
    const { sizeBytes, writes } = await readDevice(path, found.rdev)
    return { path, device, inode, sizeBytes, ...times, deviceWrites: writes }
  } catch (thrown) {
    if (thrown instanceof BackupError) throw thrown
    const code = (thrown as NodeJS.ErrnoException).code ?? 'unreadable'
    throw new BackupError(
      code === 'ENOENT' ? 'IMAGE_MISSING' : 'HOST_DENIED',
      `read image ${path}: ${code}; correct the path or its permissions`,
      { path, cause: code },
    )
  }
}

/** What two names of one file have in common; of a device, what two nodes of it have. */
function idOf(found: BigIntStats): [device: string, inode: string] {
  return found.isBlockDevice()
    ? ['block', String(found.rdev)]
    : [String(found.dev), String(found.ino)]
}
