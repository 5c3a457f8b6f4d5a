// What QEMU's words about an image mean, and its judgement on a whole one.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { BackupError, type Reason } from '@blockferry/errors'
import type { ImageLayer } from '../image/image_layers.ts'
import { layerNode } from '../image/image_node.ts'
import { foreignLimits } from '../image/limits.ts'
import type { QmpRefusal } from '../qmp.ts'
import { imageInUse } from './image_state.ts'

const checkMs = 10 * 60_000
// qemu-img prints a line per wrong cluster, 150 bytes each.
const checkOutputBytes = 64 * 2 ** 20

const isLockFailure = (words: string) => /Failed to get .*lock/.test(words)

const lockedByAnother = (path: string) => imageInUse(path, 'another process has locked it')

const logWords = /log that needs to be replayed/

/** A VHDX whose tables are not yet what its log says. */
export const isLogFailure = (refusal: QmpRefusal): boolean => logWords.test(refusal.description)

type Meaning = [words: RegExp, reason: Reason, advice: string]

/** QEMU has one error class for all of these. */
const meanings: Meaning[] = [
  [/No such file/, 'IMAGE_MISSING', 'correct the path or bring it back'],
  [/Permission denied/, 'HOST_DENIED', 'let this user read it'],
  [
    logWords,
    'IMAGE_DAMAGED',
    'its machine did not shut down cleanly, and a backup never writes to an image; start the machine and shut it down, or run "qemu-img check -r all" on the image',
  ],
  [
    /unsupported|not supported/i,
    'DISK_FORMAT_UNSUPPORTED',
    'convert it to qcow2 with the program that made it',
  ],
]

const otherwise: Meaning = [/./, 'IMAGE_DAMAGED', 'restore it from a backup']

export function openFailure(disk: { id: string; path: string }, refusal: QmpRefusal): BackupError {
  const cause = refusal.description
  if (isLockFailure(cause)) return lockedByAnother(disk.path)
  const [, reason, advice] = meanings.find(([words]) => words.test(cause)) ?? otherwise
  return new BackupError(
    reason,
    `open image ${disk.path} of disk ${disk.id}: ${cause}; ${advice}`,
    { path: disk.path, disk: disk.id, cause },
  )
}

/** A cut-off qcow2 opens well and fails in the middle of the read; its tables say so beforehand. */
export async function checkQcow2(
  id: string,
  layer: ImageLayer,
  signal: AbortSignal,
): Promise<void> {
  const { path } = layer
  // Named option by option: by its name alone, qemu-img would open what the image says lies below.
  const node = `json:${JSON.stringify(layerNode(layer))}`
  const withUs = ['setpriv', '--pdeathsig', 'KILL']
  const program = [...foreignLimits(checkMs), ...withUs, 'qemu-img', 'check', '-q', node]
  try {
    await promisify(execFile)('prlimit', program, {
      signal,
      timeout: checkMs,
      killSignal: 'SIGKILL',
      maxBuffer: checkOutputBytes,
    })
  } catch (thrown) {
    signal.throwIfAborted()
    const failure = thrown as { code?: number | string; stderr?: string; message: string }
    // 3: clusters that nobody uses, harmless. 63: the format cannot be checked.
    if (failure.code === 3 || failure.code === 63) return
    if (isLockFailure(failure.stderr ?? '')) throw lockedByAnother(path)
    const cause = failure.stderr?.trim().split('\n')[0] || failure.message
    throw new BackupError(
      'IMAGE_DAMAGED',
      `check image ${path} of disk ${id}: ${cause}; it is cut off or inconsistent, restore it from a backup`,
      { path, disk: id, cause },
    )
  }
}
