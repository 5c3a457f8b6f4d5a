import { monotonicMs, sleep } from '@blockferry/core'
import { BackupError, type Reason } from '@blockferry/errors'

// A service that stops cuts its calls off as cancelled; one that hangs lets the deadline pass; one
// without its database can say no more than that.
const silences: Reason[] = [
  'SERVICE_UNREACHABLE',
  'DEADLINE_EXCEEDED',
  'CANCELLED',
  'DATABASE_UNREACHABLE',
  'DATABASE_BUSY',
]

/** Whether a call failed because the other service did not answer: it may have done the work. */
export const isSilence = (thrown: unknown): boolean =>
  thrown instanceof BackupError && silences.includes(thrown.reason)

/** Whether a failure has one of these reasons. */
export const hasReason = (thrown: unknown, ...reasons: Reason[]): boolean =>
  thrown instanceof BackupError && reasons.includes(thrown.reason)

export interface Patience {
  /** How long the other service may be silent. */
  silentMs: number
  pauseMs: number
  signal: AbortSignal
  /** Which failures are waited out; silence unless told. */
  waitFor?: (thrown: unknown) => boolean
}

/** Asks again while the other service is silent. REQUIRES: `ask` is idempotent. */
export async function patiently<T>(ask: () => Promise<T>, patience: Patience): Promise<T> {
  const { silentMs, pauseMs, signal, waitFor = isSilence } = patience
  const beganMs = monotonicMs()
  for (;;) {
    signal.throwIfAborted()
    try {
      return await ask()
    } catch (thrown) {
      // A cancelled call fails in many ways; why it was cancelled is what matters.
      signal.throwIfAborted()
      if (!waitFor(thrown) || monotonicMs() - beganMs >= silentMs) throw thrown
    }
    await sleep(pauseMs, signal)
  }
}
