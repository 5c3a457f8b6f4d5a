// The runs that this process holds: claims them, keeps their leases, carries each to its end.
import { type Logger, monotonicMs, randomHex, sleep, within } from '@blockferry/core'
import { asBackupError, BackupError } from '@blockferry/errors'
import type { schedule } from '@blockferry/proto'
import { admit } from './admit.ts'
import { runCollect } from './collect.ts'
import type { ScheduleLimits } from './config.ts'
import { HeldRun, RunCancelled } from './held_run.ts'
import { LeaseWatch } from './lease.ts'
import { cancelSession } from './move_disks.ts'
import { cancelledOf, runRestore, undoRestore } from './restore.ts'
import { runRetain } from './retain.ts'
import { type Means, runBackup, undoBackup } from './run.ts'
import { Kind, type RunRow, State } from './run_row.ts'
import type { Unfinished } from './run_store.ts'
import { runSave, undoSave } from './save.ts'
import type { Services } from './services.ts'
import { runVerify } from './verify.ts'

interface Working {
  run: HeldRun
  stop: AbortController
  ended: Promise<void>
}

export class Holder {
  /** Names this process in the rows; drawn anew, since a process number may come back. */
  readonly name = `${process.pid}-${randomHex(4)}`
  private readonly means: Means
  private readonly limits: ScheduleLimits
  private readonly log: Logger
  private readonly leases: LeaseWatch
  private readonly working = new Map<string, Working>()
  private stopping = false

  constructor(means: Means, limits: ScheduleLimits, log: Logger) {
    this.means = means
    this.limits = limits
    this.log = log
    this.leases = new LeaseWatch(limits.leaseMs)
  }

  /** Claims what may start now and what others let go of. */
  async claim(): Promise<void> {
    const rows = await this.means.store.claim(this.name, (unfinished) => this.choose(unfinished))
    for (const row of rows) this.begin(row)
  }

  /** Stops a run at once when this process holds it; another holder sees it in the row. */
  cancel(runId: string): void {
    this.working.get(runId)?.stop.abort(new RunCancelled())
  }

  /** Leaves all runs where they are, to be taken over at once. */
  async stop(): Promise<void> {
    this.stopping = true
    const held = [...this.working.values()]
    for (const { run } of held) run.leave('the schedule service stops')
    const ended = Promise.all(held.map((each) => each.ended))
    const patience = new AbortController()
    await Promise.race([ended, sleep(this.limits.stopMs, patience.signal).catch(() => {})])
    patience.abort()
    for (const { run } of held) {
      await this.means.store.giveBack(run.id, run.row.tokenNumber).catch((thrown: unknown) => {
        this.log.warn({ err: thrown, run: run.id }, 'run not given back; its lease ends by itself')
      })
    }
  }

  private choose(unfinished: Unfinished[]): string[] {
    if (this.stopping) return []
    const held = unfinished.filter(({ holder }) => holder !== null)
    const dead = this.leases.dead(held, monotonicMs())
    const isFree = ({ runId, holder }: Unfinished) =>
      (holder === null || dead.has(runId)) && !this.working.has(runId)
    const free = unfinished.filter(isFree)
    const working = unfinished.filter((each) => !isFree(each))
    return admit(free, working, this.limits)
  }

  private begin(row: RunRow): void {
    const run = new HeldRun(row, this.means.store, this.limits, this.log)
    const stop = new AbortController()
    run.log.info({ attempt: row.attemptCount, token: String(row.tokenNumber) }, 'run claimed')
    if (row.cancelRequested) stop.abort(new RunCancelled())
    const ended = this.carry(run, stop).finally(() => this.working.delete(row.id))
    this.working.set(row.id, { run, stop, ended })
    if (this.stopping) run.leave('the schedule service stops')
  }

  private async carry(run: HeldRun, stop: AbortController): Promise<void> {
    const beating = new AbortController()
    const heart = this.beat(run, stop, AbortSignal.any([beating.signal, run.left]))
    try {
      await this.work(run, AbortSignal.any([stop.signal, run.left]))
    } catch (thrown) {
      // Leaving is no failure: whoever claims the run next finds it as it is.
      if (run.left.aborted) run.log.warn({ why: String(run.left.reason.message) }, 'run left')
      else
        run.log.error({ err: thrown }, 'the end of the run was not written; it is taken up again')
    } finally {
      beating.abort()
      await heart
      if (!run.left.aborted) run.leave('the run has ended')
    }
  }

  private async work(run: HeldRun, signal: AbortSignal): Promise<void> {
    try {
      await steps[run.row.kind](run, this.means, signal)
    } catch (thrown) {
      run.left.throwIfAborted()
      const failure = this.failureOf(run, thrown)
      // Written first: who was overtaken learns it here, and leaves the run's work to the other.
      await run.show({ error: errorOf(failure) })
      await undo[run.row.kind](run, this.means.services)
      run.left.throwIfAborted()
      const cancelled = thrown instanceof RunCancelled
      return await run.enter(cancelled ? State.CANCELLED : State.FAILED)
    }
    await run.enter(State.SUCCEEDED)
  }

  private failureOf(run: HeldRun, thrown: unknown): BackupError {
    const failure = thrown instanceof RunCancelled ? cancelledOf(run) : asBackupError(thrown)
    if (failure) {
      run.log.warn({ reason: failure.reason, metadata: failure.metadata }, failure.message)
      return failure
    }
    run.log.error({ err: thrown }, 'defect')
    return new BackupError(
      'INTERNAL',
      `run ${run.id} met a defect of Blockferry; the log of the schedule service has the details`,
    )
  }

  // The heartbeat is also the run's clock: what it has counted to says how long the run has
  // worked, over all processes that held it.
  private async beat(run: HeldRun, stop: AbortController, signal: AbortSignal): Promise<void> {
    const { heartbeatMs, leaseMs, runDeadlineMs } = this.limits
    const { id, tokenNumber } = run.row
    let answeredMs = monotonicMs()
    while (!signal.aborted) {
      try {
        await sleep(heartbeatMs, signal)
        // A database that is cut off may not answer for minutes, nor say that it will not.
        const beat = await within(leaseMs, this.means.store.beat(id, tokenNumber), () => hung(run))
        if (signal.aborted) return
        if (!beat) return run.leave(`another process holds run ${id}`)
        answeredMs = monotonicMs()
        if (beat.cancelRequested) stop.abort(new RunCancelled())
        if (Number(beat.heartbeat) * heartbeatMs >= runDeadlineMs) stop.abort(overdue(run))
      } catch (thrown) {
        if (signal.aborted) return
        run.log.warn({ err: thrown }, 'heartbeat not written')
        if (monotonicMs() - answeredMs >= leaseMs) return run.leave('the database does not answer')
      }
    }
  }
}

type Step = (run: HeldRun, means: Means, signal: AbortSignal) => Promise<unknown>

const unknownKind = async (run: HeldRun): Promise<void> => {
  throw new Error(`run ${run.id} is of kind ${run.row.kind}, which this version does not know`)
}

const steps: Record<Kind, Step> = {
  [Kind.BACKUP]: runBackup,
  [Kind.RESTORE]: runRestore,
  [Kind.VERIFY]: runVerify,
  [Kind.COLLECT]: runCollect,
  [Kind.RETAIN]: runRetain,
  [Kind.SAVE]: runSave,
  [Kind.UNSPECIFIED]: unknownKind,
}

const undoNothing = async (): Promise<void> => {}

const undo: Record<Kind, (run: HeldRun, services: Services) => Promise<void>> = {
  [Kind.BACKUP]: undoBackup,
  [Kind.RESTORE]: undoRestore,
  [Kind.VERIFY]: (run, services) => cancelSession(services.move, run, run.id),
  [Kind.COLLECT]: (run, services) => cancelSession(services.move, run, run.id),
  // What it has removed stays removed, and can be undeleted.
  [Kind.RETAIN]: undoNothing,
  [Kind.SAVE]: undoSave,
  [Kind.UNSPECIFIED]: undoNothing,
}

const hung = (run: HeldRun): Error => new Error(`the heartbeat of run ${run.id} was not answered`)

function overdue(run: HeldRun): BackupError {
  const limitMs = String(run.limits.runDeadlineMs)
  return new BackupError(
    'DEADLINE_EXCEEDED',
    `run ${run.id} worked longer than its limit of ${limitMs} ms; find out what is slow, or raise the limit`,
    { run: run.id, limit_ms: limitMs },
  )
}

/** A failure as a run shows it. */
export const errorOf = ({ reason, message, metadata }: BackupError): schedule.RunError => ({
  reason,
  message,
  metadata,
})
