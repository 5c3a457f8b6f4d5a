// What QEMU's words about an image mean, and its judgement on a whole one.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { BackupError, type Reason } from '@blockferry/errors'
import type { QmpRefusal } from '../qmp.ts'
import { imageInUse } from './image_state.ts'

const checkMs = 10 * 60_000
// qemu-img prints a line per wrong cluster, 150 bytes each.
const checkOutputBytes = 64 * 2 ** 20

const isLockFailure = (words: string) => /Failed to get .*lock/.test(words)

const lockedByAnother = (path: string) => imageInUse(path, 'another process has locked it')

/** QEMU has one error class for all of these. */
export function openFailure(disk: { id: string; path: string }, refusal: QmpRefusal): BackupError {
  const cause = refusal.description
  if (isLockFailure(cause)) return lockedByAnother(disk.path)
  const [reason, advice]: [Reason, string] = /No such file/.test(cause)
    ? ['IMAGE_MISSING', 'correct the path or bring it back']
    : /Permission denied/.test(cause)
      ? ['HOST_DENIED', 'let this user read it']
      : ['IMAGE_DAMAGED', 'restore it from a backup']
  return new BackupError(
    reason,
    `open image ${disk.path} of disk ${disk.id}: ${cause}; ${advice}`,
    { path: disk.path, disk: disk.id, cause },
  )
}

/** A cut-off qcow2 opens well and fails in the middle of the read; its tables say so beforehand. */
export async function checkImage(
  disk: { id: string; path: string },
  signal: AbortSignal,
): Promise<void> {
  try {
    await promisify(execFile)('qemu-img', ['check', '-q', '-f', 'qcow2', disk.path], {
      signal,
      timeout: checkMs,
      maxBuffer: checkOutputBytes,
    })
  } catch (thrown) {
    signal.throwIfAborted()
    const failure = thrown as { code?: number | string; stderr?: string; message: string }
    // 3: clusters that nobody uses, harmless. 63: the format cannot be checked.
    if (failure.code === 3 || failure.code === 63) return
    if (isLockFailure(failure.stderr ?? '')) throw lockedByAnother(disk.path)
    const cause = failure.stderr?.trim().split('\n')[0] || failure.message
    throw new BackupError(
      'IMAGE_DAMAGED',
      `check image ${disk.path} of disk ${disk.id}: ${cause}; it is cut off or inconsistent, restore it from a backup`,
      { path: disk.path, disk: disk.id, cause },
    )
  }
}
