// Takes an export out of QEMU or its storage daemon, also when a reader of it hangs.
//
// QEMU 7.2 shuts the connections of an export down, but does not wake its writer that waits for
// room in a unix socket: as long as the reader is stopped, the deletion waits, everything that has
// to wait for requests under way waits (a reset of the guest, say), and QEMU spins meanwhile
// (docs/adr/0004).
import { sleep } from '@blockferry/core'
import { asBackupError, BackupError } from '@blockferry/errors'
import { cutReaders } from '@blockferry/native'
import { type Qmp, QmpRefusal } from './qmp.ts'

// How long a deletion may wait for its readers before they are cut off.
const readerPatienceMs = 2_000
const deletedMs = 10_000

/** Idempotent. Errors: HOST_DENIED when a reader hangs and cannot be cut off, HOST_UNREACHABLE. */
export async function removeExport(qmp: Qmp, id: string, socketPath: string): Promise<void> {
  try {
    await qmp.execute('block-export-del', { id, mode: 'hard' })
  } catch (thrown) {
    if (!(thrown instanceof QmpRefusal)) throw thrown
    // An earlier deletion may still wait.
    if (!/already shutting down/.test(thrown.description)) return
  }
  const gone = qmp.waitFor('BLOCK_EXPORT_DELETED', (data) => data.id === id, deletedMs)
  if (await endsWithin(readerPatienceMs, gone)) return void (await gone)
  const held = await cutOffReaders(socketPath)
  await gone.catch((thrown: unknown) => {
    throw held ?? thrown
  })
}

/** Whether it ends in time; its failure is left to who waits for it. */
async function endsWithin(ms: number, work: Promise<unknown>): Promise<boolean> {
  const waiting = new AbortController()
  const late = sleep(ms, waiting.signal).then(
    () => false,
    () => true,
  )
  void work.then(
    () => waiting.abort(),
    () => waiting.abort(),
  )
  return late
}

/**
 * Ends the connections of all readers of a server's socket; nobody may want what they read any
 * more. Answers why that did not work, null when it did: most readers end by themselves, so it is
 * for the caller to say whether it matters.
 */
export async function cutOffReaders(socketPath: string): Promise<BackupError | null> {
  try {
    const readers = await cutReaders(socketPath)
    const held = readers.find(({ failure }) => failure !== null)
    return held ? cannotCut(socketPath, held) : null
  } catch (thrown) {
    // A kernel without diagnostics of unix sockets, for one.
    const failure = asBackupError(thrown)
    if (!failure) throw thrown
    return failure
  }
}

function cannotCut(
  socketPath: string,
  { pid, failure }: { pid: number; failure: string | null },
): BackupError {
  const who = pid === 0 ? 'a process of another user' : `process ${pid}`
  const cause = failure ?? ''
  return new BackupError(
    'HOST_DENIED',
    `end the readers of ${socketPath}: ${who} does not go on and cannot be cut off (${cause}); end that process, or give this one the right to trace it (CAP_SYS_PTRACE)`,
    { path: socketPath, pid: String(pid), cause },
  )
}
