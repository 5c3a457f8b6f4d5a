// Whether an image file is still what it was when the point began: the same file
// (device and inode, so that a replacement by rename counts), of the same size, not written since.
import { readlinkSync, statSync } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { sleep, wallMs } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'

/** Nanosecond times are kept as text: they do not fit a number, and JSON has no bigint. */
export interface ImageState {
  path: string
  device: string
  inode: string
  sizeBytes: number
  mtimeNs: string
  ctimeNs: string
}

// The kernel stamps files by its tick, 4 ms or 10 ms long: two writes within one tick look like one.
// A state is therefore only taken when the last write is older than this.
const tickMs = 30

/** Errors: IMAGE_MISSING, HOST_DENIED. */
export async function rememberState(path: string, signal: AbortSignal): Promise<ImageState> {
  const first = await stateOf(path)
  const age = wallMs() - Number(BigInt(first.ctimeNs) / 1_000_000n)
  if (age >= tickMs) return first
  await sleep(tickMs, signal)
  return await stateOf(path)
}

/** Errors: IMAGE_CHANGED with what changed. */
export async function assertUnchanged(before: ImageState): Promise<void> {
  const now = await stateOf(before.path).catch(() => null)
  const cause = !now
    ? 'it is gone'
    : now.device !== before.device || now.inode !== before.inode
      ? 'another file took its place'
      : now.sizeBytes !== before.sizeBytes
        ? `its size went from ${before.sizeBytes} to ${now.sizeBytes} bytes`
        : now.mtimeNs !== before.mtimeNs || now.ctimeNs !== before.ctimeNs
          ? 'it was written'
          : null
  if (cause === null) return
  throw new BackupError(
    'IMAGE_CHANGED',
    `read image ${before.path}: ${cause} while it was read; keep the machine off during the backup, or add a stop hook`,
    { path: before.path, cause },
  )
}

/**
 * Refuses a file that any process has open for writing, for programs that take no lock.
 * Best effort: processes of other users are only seen as root, and other machines never.
 * Errors: IMAGE_IN_USE.
 */
export async function assertNoWriter(states: ImageState[]): Promise<void> {
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
    if (!target.startsWith('/') || target.startsWith('/dev/')) return ''
    const { dev, ino } = statSync(descriptor, { bigint: true })
    return `${dev}:${ino}`
  } catch {
    return ''
  }
}

async function stateOf(path: string): Promise<ImageState> {
  try {
    const found = await stat(path, { bigint: true })
    return {
      path,
      device: String(found.dev),
      inode: String(found.ino),
      sizeBytes: Number(found.size),
      mtimeNs: String(found.mtimeNs),
      ctimeNs: String(found.ctimeNs),
    }
  } catch (thrown) {
    const code = (thrown as NodeJS.ErrnoException).code ?? 'unreadable'
    throw new BackupError(
      code === 'ENOENT' ? 'IMAGE_MISSING' : 'HOST_DENIED',
      `read image ${path}: ${code}; correct the path or its permissions`,
      { path, cause: code },
    )
  }
}
