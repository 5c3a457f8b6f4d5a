// Every reading of a clock and every timer of the product goes through here, so
// that tidy can forbid the globals elsewhere.

/** Monotonic milliseconds with an arbitrary start: for durations and deadlines. */
export const monotonicMs = (): number => performance.now()

/** Wall clock, milliseconds since the epoch: for people and records only, never for decisions. */
export const wallMs = (): number => Date.now()

/** Resolves after `ms`, rejects with the signal's reason when aborted. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const abort = () => {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', abort, { once: true })
  })
}

/** Calls `action` after `ms`; the returned function takes it back. Does not keep the process alive. */
export function after(ms: number, action: () => void): () => void {
  const timer = setTimeout(action, ms)
  timer.unref()
  return () => clearTimeout(timer)
}

/** Settles as `work` does, or rejects with `late()` when it takes longer than `ms`. */
export async function within<T>(ms: number, work: Promise<T>, late: () => Error): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late()), ms)
  })
  try {
    return await Promise.race([work, timeout])
  } finally {
    clearTimeout(timer)
  }
}
