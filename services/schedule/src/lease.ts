/** What a claimed run shows of its holder. */
export interface Beating {
  runId: string
  tokenNumber: bigint
  heartbeat: bigint
}

interface Seen {
  tokenNumber: bigint
  heartbeat: bigint
  sinceMs: number
}

/**
 * Watches the heartbeats of others. A lease is dead when its heartbeat has stood still for
 * `leaseMs` of this process's monotonic clock: no wall clock of any machine decides anything.
 */
export class LeaseWatch {
  private readonly leaseMs: number
  private seen = new Map<string, Seen>()

  constructor(leaseMs: number) {
    this.leaseMs = leaseMs
  }

  /** Takes in all leases there are now; returns the ids of those that are dead. */
  dead(leases: readonly Beating[], nowMs: number): Set<string> {
    const dead = new Set<string>()
    const now = new Map<string, Seen>()
    for (const { runId, tokenNumber, heartbeat } of leases) {
      const before = this.seen.get(runId)
      const still = before?.tokenNumber === tokenNumber && before.heartbeat === heartbeat
      const seen = still ? before : { tokenNumber, heartbeat, sinceMs: nowMs }
      now.set(runId, seen)
      if (nowMs - seen.sinceMs >= this.leaseMs) dead.add(runId)
    }
    this.seen = now
    return dead
  }
}
