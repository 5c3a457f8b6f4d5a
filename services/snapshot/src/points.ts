// Points that runs hold. What exists is on the platforms; here is only who needs it
// and until when, by the monotonic clock of this process. After a restart a point is found by its
// tag again and whoever still needs it says so.
import { after, type Logger, monotonicMs } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import type { FoundPoint, HypervisorDriver, Point } from '@blockferry/hypervisor'
import type { SnapshotLimits } from './config.ts'
import type { Drivers } from './drivers.ts'

type Outcome = 'committed' | 'dropped'

/** A point with the driver that took it. */
export interface TakenPoint {
  host: string
  driver: HypervisorDriver
  point: Point
}

interface Held {
  host: string
  driver: HypervisorDriver
  leaseEndsMs: number
  /** Null for one that was found after a restart. */
  taken: TakenPoint | null
}

export interface FoundOnHost {
  host: string
  driver: HypervisorDriver
  point: FoundPoint
}

export class Points {
  #drivers: Drivers
  #limits: SnapshotLimits
  #log: Logger
  #held = new Map<string, Held>()
  #beginning = new Map<string, Promise<TakenPoint>>()
  #releasing = new Map<string, Promise<void>>()

  constructor(drivers: Drivers, limits: SnapshotLimits, log: Logger) {
    this.#drivers = drivers
    this.#limits = limits
    this.#log = log
  }

  /** Whether a run holds it or is just beginning it. */
  isHeld(pointId: string): boolean {
    if (this.#beginning.has(pointId)) return true
    const held = this.#held.get(pointId)
    return held !== undefined && monotonicMs() < held.leaseEndsMs
  }

  /** Whether a run of this process's time held it: its lease has run out, nobody else may ask. */
  wasHeld(pointId: string): boolean {
    return this.#held.has(pointId)
  }

  /** Idempotent by point id: a second call waits for the first or gets its point. */
  async begin(
    pointId: string,
    leaseMs: number,
    take: (signal: AbortSignal) => Promise<TakenPoint>,
    signal: AbortSignal,
  ): Promise<TakenPoint> {
    const known = this.#held.get(pointId)?.taken
    if (known) {
      await known.driver.confirmPoint(pointId, signal)
      this.#hold(pointId, known, leaseMs)
      return known
    }
    const running = this.#beginning.get(pointId)
    if (running) return await running
    const beginning = this.#begin(pointId, leaseMs, take, signal)
    this.#beginning.set(pointId, beginning)
    try {
      return await beginning
    } finally {
      this.#beginning.delete(pointId)
    }
  }

  /** Errors: POINT_NOT_FOUND. */
  async hold(pointId: string, leaseMs: number, signal: AbortSignal): Promise<void> {
    const held = await this.#holderOf(pointId, signal)
    held.leaseEndsMs = monotonicMs() + leaseMs
  }

  /** Errors: POINT_NOT_FOUND, POINT_LOST, POINT_BROKEN, IMAGE_CHANGED, DISK_REMOVED. */
  async confirm(pointId: string, signal: AbortSignal): Promise<void> {
    const held = await this.#holderOf(pointId, signal)
    await held.driver.confirmPoint(pointId, signal)
  }

  /** Idempotent; not cancelled by its caller, since half a release helps nobody. */
  release(pointId: string, outcome: Outcome): Promise<void> {
    const running = this.#releasing.get(pointId)
    if (running) return running
    const beginning = this.#beginning.get(pointId)?.catch(() => {})
    const releasing = Promise.resolve(beginning)
      .then(() => this.#release(pointId, outcome))
      .finally(() => this.#releasing.delete(pointId))
    this.#releasing.set(pointId, releasing)
    return releasing
  }

  /** What exists now on every host that answers. */
  async find(signal: AbortSignal): Promise<FoundOnHost[]> {
    const lists = await Promise.all(
      this.#drivers.all().map(async ({ host, driver }) => {
        try {
          const points = await driver.findPoints(signal)
          return points.map((point) => ({ host, driver, point }))
        } catch (thrown) {
          signal.throwIfAborted()
          this.#log.debug({ err: thrown, host }, 'the points of a host cannot be listed')
          return []
        }
      }),
    )
    return lists.flat()
  }

  async #begin(
    pointId: string,
    leaseMs: number,
    take: (signal: AbortSignal) => Promise<TakenPoint>,
    signal: AbortSignal,
  ): Promise<TakenPoint> {
    await this.#releasing.get(pointId)?.catch(() => {})
    const limit = new AbortController()
    const takeBack = after(this.#limits.beginMs, () =>
      limit.abort(tooLate(pointId, this.#limits.beginMs)),
    )
    try {
      const taken = await take(AbortSignal.any([signal, limit.signal]))
      this.#hold(pointId, taken, leaseMs)
      const { vm, frozenMs, pausedMs } = taken.point
      this.#log.info({ point: pointId, vm: vm.name, host: taken.host, frozenMs, pausedMs }, 'begun')
      return taken
    } finally {
      takeBack()
    }
  }

  #hold(pointId: string, taken: TakenPoint, leaseMs: number): void {
    const { host, driver } = taken
    this.#held.set(pointId, { host, driver, taken, leaseEndsMs: monotonicMs() + leaseMs })
  }

  /** Who holds it now; after a restart, whoever asks. Errors: POINT_NOT_FOUND. */
  async #holderOf(pointId: string, signal: AbortSignal): Promise<Held> {
    const known = this.#held.get(pointId)
    const found = known ?? (await this.#findOurs(pointId, signal))[0]
    // One that is just being removed cannot be held any more.
    if (!found || this.#releasing.has(pointId)) throw pointNotFound(pointId)
    if (known) return known
    const { host, driver } = found
    const leaseEndsMs = monotonicMs() + this.#limits.leaseMs
    const held: Held = { host, driver, taken: null, leaseEndsMs }
    this.#held.set(pointId, held)
    this.#log.info({ point: pointId, host }, 'adopted')
    return held
  }

  async #release(pointId: string, outcome: Outcome): Promise<void> {
    const limit = new AbortController()
    const { releaseMs } = this.#limits
    const takeBack = after(releaseMs, () => limit.abort(tooLate(pointId, releaseMs)))
    try {
      const holders = await this.#holdersOf(pointId, limit.signal)
      for (const { host, driver } of holders) {
        await driver.releasePoint(pointId, outcome, limit.signal)
        this.#log.info({ point: pointId, host, outcome }, 'released')
      }
      this.#held.delete(pointId)
    } finally {
      takeBack()
    }
  }

  async #holdersOf(pointId: string, signal: AbortSignal) {
    const held = this.#held.get(pointId)
    if (held) return [held]
    return await this.#findOurs(pointId, signal)
  }

  async #findOurs(pointId: string, signal: AbortSignal): Promise<FoundOnHost[]> {
    const found = await this.find(signal)
    return found.filter(({ point }) => point.ours && point.pointId === pointId)
  }
}

const tooLate = (pointId: string, limitMs: number) =>
  new BackupError('DEADLINE_EXCEEDED', `point ${pointId}: no end in ${limitMs} ms`, {
    point: pointId,
  })

const pointNotFound = (pointId: string) =>
  new BackupError(
    'POINT_NOT_FOUND',
    `find point ${pointId}: no host has it; it was released, or its VM ended`,
    { point: pointId },
  )
