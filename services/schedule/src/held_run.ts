import { type Logger, monotonicMs, sleep } from '@blockferry/core'
import { BackupError, type Decision } from '@blockferry/errors'
import type { move, schedule, snapshot } from '@blockferry/proto'
import type { ScheduleLimits } from './config.ts'
import { hasReason } from './patience.ts'
import type { Plan, RunRow, ShownRow, State } from './run_row.ts'
import { stateWord } from './run_row.ts'
import type { RunChange, RunStore } from './run_store.ts'

/** This process no longer carries the run: the row and what the run made are left as they are. */
export class RunLeft extends Error {}

/**
 * A run that this process holds. Every change goes to the database first and only while the row
 * still shows our token's number: a process that slept through its lease changes nothing.
 */
export class HeldRun {
  readonly log: Logger
  readonly limits: ScheduleLimits
  private readonly store: RunStore
  private readonly leaving = new AbortController()
  private current: RunRow
  private writing: Promise<unknown> = Promise.resolve()
  private reportedMs = Number.NEGATIVE_INFINITY

  constructor(row: RunRow, store: RunStore, limits: ScheduleLimits, log: Logger) {
    this.current = row
    this.store = store
    this.limits = limits
    this.log = log.child({ run: row.id })
  }

  get row(): RunRow {
    return this.current
  }

  get id(): string {
    return this.current.id
  }

  get plan(): Plan {
    return this.current.plan
  }

  /** Aborted when the run is left to others, with RunLeft. */
  get left(): AbortSignal {
    return this.leaving.signal
  }

  leave(why: string): void {
    this.leaving.abort(new RunLeft(why))
  }

  enter(state: State): Promise<void> {
    return this.save({ state })
  }

  /** Enters a state that cannot be cancelled, unless somebody has asked for that before. */
  async enterForGood(state: State): Promise<void> {
    const saved = await this.write({ state }, true)
    if (!saved) throw new RunCancelled()
  }

  /** Enters `state`, for which a new point was drawn: it is written before anybody hears of it. */
  async enterWithPoint(state: State, pointId: string): Promise<void> {
    await this.save({ state, pointIds: [...this.current.pointIds, pointId], point: null })
  }

  /** The point as it was taken, what the API shows of it, and why it is as it is. */
  async setPoint(point: snapshot.Point, shown: Partial<schedule.Run>): Promise<void> {
    const decisions = this.withNotes(point.decisions)
    await this.save({ point, detail: { ...this.current.detail, ...shown, decisions } })
  }

  /** Changes what the API shows. */
  async show(shown: Partial<schedule.Run>): Promise<void> {
    await this.save({ detail: { ...this.current.detail, ...shown } })
  }

  /** Notes why the run does what it does; the same about the same disk once. */
  async decide(decision: Decision, message: string, disk = ''): Promise<void> {
    const before = this.current.detail.decisions
    const decisions = this.withNotes([{ decision, disk, message }])
    if (decisions.length > before.length) await this.show({ decisions })
  }

  /** All decisions of the run with those that are new among `notes`. */
  private withNotes(notes: schedule.Run['decisions']): schedule.Run['decisions'] {
    const known = this.current.detail.decisions
    const fresh = notes.filter(
      ({ decision, disk }) =>
        !known.some((note) => note.decision === decision && note.disk === disk),
    )
    for (const { decision, disk, message } of fresh) {
      this.log.info({ decision, disk }, message)
    }
    return [...known, ...fresh]
  }

  /** Shows the progress of the disks, now and then and when `final`. */
  async report(disks: move.DiskProgress[], final: boolean): Promise<void> {
    const nowMs = monotonicMs()
    if (!final && nowMs - this.reportedMs < this.limits.progressMs) return
    this.reportedMs = nowMs
    await this.show({ disks })
  }

  private async save(change: RunChange): Promise<void> {
    await this.write(change, false)
  }

  // One write after the other, each with all that was changed in memory before it.
  private async write(change: RunChange, unlessCancelled: boolean): Promise<boolean> {
    const before = this.current.state
    if (change.detail) this.current = { ...this.current, detail: change.detail }
    const saving = this.writing
      .catch(() => {})
      .then(() =>
        this.writeOnce(
          change.detail ? { ...change, detail: this.current.detail } : change,
          unlessCancelled,
        ),
      )
    this.writing = saving
    const row = await saving
    if (!row) return false
    const { plan, detail, point: pointBefore } = this.current
    const point = change.point === undefined ? pointBefore : change.point
    this.current = { ...row, plan, detail, point }
    if (row.state !== before) {
      this.log.info({ from: stateWord(before), to: stateWord(row.state) }, 'run moves on')
    }
    return true
  }

  private async writeOnce(change: RunChange, unlessCancelled: boolean): Promise<ShownRow | null> {
    const { id, tokenNumber } = this.current
    for (;;) {
      this.left.throwIfAborted()
      try {
        const row = await this.store.save(id, tokenNumber, change, unlessCancelled)
        if (row) return row
        if (unlessCancelled && (await this.store.beat(id, tokenNumber))) return null
        this.leave(`another process holds run ${id}`)
      } catch (thrown) {
        // How long that may go on is up to the lease.
        if (!hasReason(thrown, 'DATABASE_UNREACHABLE', 'DATABASE_BUSY')) throw thrown
        await sleep(this.limits.retryPauseMs, this.left)
      }
    }
  }
}

/** Somebody asked the run to stop. */
export class RunCancelled extends BackupError {
  constructor() {
    super('CANCELLED', 'the run was cancelled; what it had made was removed')
  }
}
