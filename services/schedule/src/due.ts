// Which policies are due. A policy keeps the rhythm of its first due time: late ticks do not
// shift it, and however much time has passed, it is due once and then in the future again.

export interface Repeating {
  name: string
  repeatMs: number
  nextRunMs: number
}

export interface Due {
  name: string
  /** The time it was due at, which names this occasion. */
  dueMs: number
  nextRunMs: number
  /** False when only the next time is put right, because the clock was set back. */
  starts: boolean
}

/** Policies that are due at `nowMs`, earliest first. */
export function due(policies: readonly Repeating[], nowMs: number): Due[] {
  return policies
    .flatMap((policy) => dueOne(policy, nowMs) ?? [])
    .sort((one, other) => one.dueMs - other.dueMs || (one.name < other.name ? -1 : 1))
}

function dueOne({ name, repeatMs, nextRunMs }: Repeating, nowMs: number): Due | null {
  if (nextRunMs > nowMs + repeatMs) {
    // The clock was far ahead when this time was chosen: nothing would run until it is reached.
    return { name, dueMs: nextRunMs, nextRunMs: nowMs + repeatMs, starts: false }
  }
  if (nextRunMs > nowMs) return null
  const missed = Math.floor((nowMs - nextRunMs) / repeatMs)
  return { name, dueMs: nextRunMs, nextRunMs: nextRunMs + (missed + 1) * repeatMs, starts: true }
}
