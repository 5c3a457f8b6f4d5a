// Removes points that nobody holds any more: a run that ended without a release, a
// process that was killed. It looks at the platforms, not at the database, and touches only what
// carries our installation's tag.
import { type Logger, monotonicMs, sleep } from '@blockferry/core'
import type { SnapshotLimits } from './config.ts'
import type { FoundOnHost, Points } from './points.ts'

export class Reaper implements AsyncDisposable {
  #points: Points
  #limits: SnapshotLimits
  #log: Logger
  /** When each point was first seen without a holder; whoever needs it gets one lease to say so. */
  #orphanSinceMs = new Map<string, number>()
  #stop = new AbortController()
  #done: Promise<void>

  constructor(points: Points, limits: SnapshotLimits, log: Logger) {
    this.#points = points
    this.#limits = limits
    this.#log = log
    this.#done = this.#loop()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#done
  }

  async #loop(): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      await this.#look(signal).catch((thrown) => {
        if (!signal.aborted) this.#log.error({ err: thrown }, 'looking for leftovers failed')
      })
      await sleep(this.#limits.reapIntervalMs, signal).catch(() => {})
    }
  }

  async #look(signal: AbortSignal): Promise<void> {
    const found = await this.#points.find(signal)
    const orphans = found.filter(({ point }) => point.ours && !this.#points.isHeld(point.pointId))
    const ids = new Set(orphans.map(({ point }) => point.pointId))
    for (const id of this.#orphanSinceMs.keys()) if (!ids.has(id)) this.#orphanSinceMs.delete(id)
    for (const orphan of orphans) {
      // Its run may have come back while another one was removed.
      const isHeld = this.#points.isHeld(orphan.point.pointId)
      if (!isHeld && this.#isDue(orphan)) await this.#remove(orphan)
    }
  }

  #isDue({ point }: FoundOnHost): boolean {
    const since = this.#orphanSinceMs.get(point.pointId) ?? monotonicMs()
    this.#orphanSinceMs.set(point.pointId, since)
    return this.#points.wasHeld(point.pointId) || monotonicMs() - since > this.#limits.leaseMs
  }

  async #remove({ host, point }: FoundOnHost): Promise<void> {
    const about = { point: point.pointId, vm: point.vmName, host }
    try {
      // Whether a manifest was committed for it is not known here. Its bitmaps stay, which costs
      // nothing: the next point drops those that no committed backup names.
      await this.#points.release(point.pointId, 'committed')
      this.#log.warn(about, 'removed a point that nobody held')
    } catch (thrown) {
      this.#log.error({ ...about, err: thrown }, 'a point that nobody holds cannot be removed')
    }
  }
}
