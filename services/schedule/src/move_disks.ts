import { monotonicMs, sleep, within } from '@blockferry/core'
import { BackupError, isReason } from '@blockferry/errors'
import { move } from '@blockferry/proto'
import type { HeldRun } from './held_run.ts'
import { hasReason, isSilence } from './patience.ts'
import type { Services } from './services.ts'

const { MOVED, DONE, FAILED } = move.Session_State

/**
 * Follows a session of the mover to the end of its work. `start` is idempotent by the session's
 * name, so a mover that was restarted is told again and goes on at its checkpoint.
 */
export async function followSession(
  calls: Services['move'],
  run: HeldRun,
  start: () => Promise<{ session?: move.Session | undefined }>,
  signal: AbortSignal,
): Promise<move.Session> {
  const { moverSilentMs, retryPauseMs, sessionRestartsMax } = run.limits
  let heardMs = monotonicMs()
  let begun = 0
  let startTimeMs: number | undefined
  for (;;) {
    signal.throwIfAborted()
    try {
      const session = sessionOf(await start())
      heardMs = monotonicMs()
      if (begun === 0 || session.startTime?.getTime() !== startTimeMs) {
        startTimeMs = session.startTime?.getTime()
        if (begun++ > 0) await run.decide('RESUMED', 'the mover was restarted and goes on')
      }
      return await watchSession(calls, run, session, signal, () => {
        heardMs = monotonicMs()
      })
    } catch (thrown) {
      signal.throwIfAborted()
      // The session of a mover that stops may say so itself before the mover is gone.
      if (hasReason(thrown, 'CANCELLED')) begun++
      const gone = isSilence(thrown) || hasReason(thrown, 'SESSION_NOT_FOUND')
      if (!gone || begun > sessionRestartsMax || monotonicMs() - heardMs >= moverSilentMs) {
        throw thrown
      }
      run.log.warn({ err: thrown }, 'the mover does not answer; its session is asked for again')
    }
    await sleep(retryPauseMs, signal)
  }
}

/** Stops the mover's session and waits until it has let go of what it read and wrote. */
export async function cancelSession(
  calls: Services['move'],
  run: HeldRun,
  sessionId: string,
): Promise<void> {
  try {
    await calls.cancelSession({ name: `sessions/${sessionId}` }, { signal: run.left })
  } catch (thrown) {
    // A session whose point is gone reads nothing more, and only schedule makes it commit.
    if (run.left.aborted || hasReason(thrown, 'SESSION_NOT_FOUND')) return
    run.log.warn({ err: thrown, session: sessionId }, 'session not cancelled')
  }
}

async function watchSession(
  calls: Services['move'],
  run: HeldRun,
  begun: move.Session,
  signal: AbortSignal,
  heard: () => void,
): Promise<move.Session> {
  if (await isDone(run, begun)) return begun
  signal.throwIfAborted()
  // Cut off when the watch is given up, so that a mover that hangs keeps no call open.
  const giveUp = new AbortController()
  const watched = calls
    .watchSession({ name: begun.name }, { signal: AbortSignal.any([signal, giveUp.signal]) })
    [Symbol.asyncIterator]()
  try {
    for (;;) {
      const next = await within(run.limits.watchQuietMs, watched.next(), silent)
      if (next.done) throw silent()
      heard()
      const session = sessionOf(next.value)
      if (await isDone(run, session)) return session
    }
  } finally {
    giveUp.abort()
  }
}

async function isDone(run: HeldRun, session: move.Session): Promise<boolean> {
  const done = session.state === MOVED || session.state === DONE
  const failed = session.state === FAILED
  await run.report(session.disks, done || failed)
  if (failed) throw failureOf(session)
  return done
}

function failureOf({ errorReason, errorMessage, errorMetadata }: move.Session): BackupError {
  const reason = isReason(errorReason) ? errorReason : 'INTERNAL'
  return new BackupError(reason, errorMessage, errorMetadata)
}

function sessionOf({ session }: { session?: move.Session | undefined }): move.Session {
  if (session) return session
  throw new BackupError('INTERNAL', 'the move service answered without a session')
}

const silent = (): BackupError =>
  new BackupError('SERVICE_UNREACHABLE', 'watch the session of the mover: no answer')
