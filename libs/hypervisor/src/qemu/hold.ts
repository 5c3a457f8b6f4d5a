// The seconds in which a guest is frozen or paused. This runs in the guard process,
// which owns the monitor and the agent from before the freeze until after the thaw:
// whatever happens to the process that started it, the guest goes on.
//
//   0 ms      freeze asked for
//   4000 ms   at the latest: the freeze is given up
//   5000 ms   at the latest: everything else is given up, resume and thaw begin
//   6500 ms   the process that started the guard ends it and undoes the hold by another
//   10000 ms  the promise
import { rename, rm, writeFile } from 'node:fs/promises'
import { monotonicMs, sleep, wallMs } from '@blockferry/core'
import { asBackupError, BackupError, type Reason } from '@blockferry/errors'
import { Qmp } from '../qmp.ts'
import { AgentRefusal, GuestAgent } from './agent.ts'
import type { TransactionAction } from './bitmaps.ts'
import { type ProcessId, startTicksOf } from './process.ts'

export const freezeMsMax = 4_000
export const undoAfterMs = 5_000
export const guardMsMax = 6_500
const syncMsMax = 2_000
const undoMsMax = 3_000
// A freeze hook that hangs longer keeps its guest's agent busy; the thaw stays queued with it.
const lingerMsMax = 600_000

export interface HoldJob {
  vmName: string
  monitor: string
  qemu: ProcessId | null
  /** Null: do not freeze. */
  agentSocket: string | null
  /** The VM runs and has to run again; false for one that its user paused. */
  pause: boolean
  /** Where each device's `drive` is set to the node that copies before writes. */
  drives: { qomPath: string; node: string }[]
  actions: TransactionAction[]
  /** File that says, while the guest is held, what would have to be undone. */
  markPath: string
}

export type HoldStep = 'connect' | 'freeze' | 'pause' | 'point' | 'resume' | 'thaw'

export type HoldReport =
  | { event: 'step'; step: HoldStep }
  | ({ event: 'done' } & HoldResult)
  /** `lingering`: the guard stays until the guest agent has thawed or is gone. */
  | { event: 'failed'; reason: Reason; message: string; lingering: boolean }

export interface HoldResult {
  /** Why no file system was frozen, or null when they were. */
  quiesceSkipped: string | null
  /** File systems had been left frozen by somebody who is gone. */
  thawedLeftover: boolean
  frozenMs: number
  pausedMs: number
  timeMs: number
}

type Report = (report: HoldReport) => void

/** What the mark file says. */
export interface HoldMark {
  guard: ProcessId
  job: HoldJob
}

/** Freezes, pauses, takes the point, resumes, thaws; reports exactly one `done` or `failed`. */
export async function hold(job: HoldJob, report: Report): Promise<void> {
  report({ event: 'step', step: 'connect' })
  try {
    await using qmp = await Qmp.connect(job.monitor)
    const { agent, skipped } = await reachAgent(job)
    try {
      await new Hold(job, qmp, agent, skipped, report).run()
    } finally {
      agent?.close()
    }
  } catch (thrown) {
    report(failed(thrown, false))
  }
}

/** Lets a guest go on whose guard ended too early. */
export async function undoHold(job: HoldJob, report: Report): Promise<void> {
  try {
    await writeMark(job)
    if (job.pause) {
      await using qmp = await Qmp.connect(job.monitor)
      report({ event: 'step', step: 'resume' })
      await resume(qmp, undoMsMax)
    }
    if (job.agentSocket) {
      report({ event: 'step', step: 'thaw' })
      await thawLeftover(job.agentSocket, report)
    }
    await rm(job.markPath, { force: true })
    report({ event: 'done', ...nothing })
  } catch (thrown) {
    report(failed(thrown, false))
  }
}

const nothing: HoldResult = {
  ...{ quiesceSkipped: null, thawedLeftover: false, frozenMs: 0, pausedMs: 0, timeMs: 0 },
}

class Hold {
  #job: HoldJob
  #qmp: Qmp
  #agent: GuestAgent | null
  #report: Report
  #startMs = 0
  #frozenAtMs: number | null = null
  #paused = false
  #stopUs = 0
  #resumeUs = 0
  #result: HoldResult

  constructor(
    job: HoldJob,
    qmp: Qmp,
    agent: GuestAgent | null,
    quiesceSkipped: string | null,
    report: Report,
  ) {
    this.#job = job
    this.#qmp = qmp
    this.#agent = agent
    this.#report = report
    this.#result = { ...nothing, quiesceSkipped }
    qmp.onEvent(({ event, timestampUs }) => {
      if (event === 'STOP') this.#stopUs = timestampUs
      if (event === 'RESUME') this.#resumeUs = timestampUs
    })
  }

  async run(): Promise<void> {
    if (this.#agent) await this.#thawWhatWasLeft(this.#agent)
    this.#startMs = monotonicMs()
    await writeMark(this.#job)
    let failure: unknown = null
    try {
      await this.#freeze()
      await this.#pause()
      await this.#point()
    } catch (thrown) {
      failure = thrown
    }
    await this.#goOn(failure)
  }

  async #thawWhatWasLeft(agent: GuestAgent): Promise<void> {
    // Whoever froze them has left the channel, which serves one client: nobody will thaw them.
    const status = await agent.execute('guest-fsfreeze-status', syncMsMax)
    if (status !== 'frozen') return
    await agent.execute('guest-fsfreeze-thaw', syncMsMax)
    this.#result.thawedLeftover = true
  }

  async #freeze(): Promise<void> {
    if (!this.#agent) return
    this.#report({ event: 'step', step: 'freeze' })
    this.#frozenAtMs = monotonicMs()
    try {
      await this.#agent.execute('guest-fsfreeze-freeze', freezeMsMax)
    } catch (thrown) {
      const cause = thrown instanceof Error ? thrown.message : String(thrown)
      const message = `freeze the file systems of VM ${this.#job.vmName}: ${cause}; look at the freeze hooks in the guest`
      throw new BackupError('QUIESCE_FAILED', message, { vm: this.#job.vmName, cause })
    }
  }

  async #pause(): Promise<void> {
    if (!this.#job.pause) return
    this.#report({ event: 'step', step: 'pause' })
    this.#paused = true
    await this.#execute('stop')
  }

  async #point(): Promise<void> {
    this.#report({ event: 'step', step: 'point' })
    for (const { qomPath, node } of this.#job.drives) {
      await this.#execute('qom-set', { path: qomPath, property: 'drive', value: node })
    }
    await this.#execute('transaction', { actions: this.#job.actions })
    this.#result.timeMs = wallMs()
  }

  #execute(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    const deadlineMs = Math.max(1, this.#startMs + undoAfterMs - monotonicMs())
    return this.#qmp.execute(command, args, { deadlineMs })
  }

  /** Resume and thaw come whatever failed before, each even when the other fails. */
  async #goOn(failure: unknown): Promise<void> {
    let fault = failure
    const late: Promise<unknown>[] = []
    let monitorFree = true
    if (this.#paused) {
      this.#report({ event: 'step', step: 'resume' })
      const resuming = resume(this.#qmp, lingerMsMax)
      const trouble = await inTime(resuming)
      if (trouble) {
        late.push(resuming)
        monitorFree = false
      }
      fault ??= trouble
      this.#result.pausedMs = Math.max(0, this.#resumeUs - this.#stopUs) / 1000
    }
    if (this.#agent && this.#frozenAtMs !== null) {
      // A freeze that was given up may still come: its hook returns some day and then the agent
      // freezes. So the thaw is queued with the agent now, and waited for below.
      const thawing = this.#thaw(this.#agent)
      const trouble = await inTime(thawing, failure === null ? undoMsMax : 500)
      if (trouble) late.push(thawing)
      fault ??= trouble
      this.#result.frozenMs = monotonicMs() - this.#frozenAtMs
    }
    // Only the agent may be waited for from here on; the starter needs the monitor.
    if (monitorFree) this.#qmp.close()
    if (late.length > 0) this.#report(failed(fault, true))
    await Promise.allSettled(late)
    // Before the last word, which lets the starter end this process: a mark that stays would make
    // a VM go on later that its user has paused meanwhile.
    await rm(this.#job.markPath, { force: true })
    if (fault === null) this.#report({ event: 'done', ...this.#result })
    else if (late.length === 0) this.#report(failed(fault, false))
  }

  async #thaw(agent: GuestAgent): Promise<void> {
    this.#report({ event: 'step', step: 'thaw' })
    await thaw(agent)
  }
}

async function thaw(agent: GuestAgent): Promise<void> {
  const endMs = monotonicMs() + lingerMsMax
  for (;;) {
    try {
      await agent.execute('guest-fsfreeze-thaw', endMs - monotonicMs())
      if ((await agent.execute('guest-fsfreeze-status', syncMsMax)) === 'thawed') return
    } catch (thrown) {
      if (!(thrown instanceof AgentRefusal) || monotonicMs() > endMs) throw thrown
    }
    await sleep(200)
  }
}

async function thawLeftover(agentSocket: string, report: Report): Promise<void> {
  const thawing = GuestAgent.connect(agentSocket, lingerMsMax).then(async (agent) => {
    await thaw(agent).finally(() => agent.close())
  })
  const timely = await inTime(thawing)
  if (!(timely instanceof Error)) return
  report(failed(timely, true))
  await thawing
}

async function resume(qmp: Qmp, deadlineMs: number): Promise<void> {
  await qmp.execute('cont', {}, { deadlineMs })
}

/** The error of `work`, or one that says it is late; null when it is done. */
async function inTime(work: Promise<unknown>, ms: number = undoMsMax): Promise<Error | null> {
  const asError = (thrown: unknown) =>
    thrown instanceof Error ? thrown : new Error(String(thrown))
  const late = sleep(ms).then(() => new Error(`the guest did not go on within ${ms} ms`))
  return await Promise.race([work.then(() => null, asError), late])
}

async function reachAgent(
  job: HoldJob,
): Promise<{ agent: GuestAgent | null; skipped: string | null }> {
  if (job.agentSocket === null) return { agent: null, skipped: null }
  try {
    return { agent: await GuestAgent.connect(job.agentSocket, syncMsMax), skipped: null }
  } catch (thrown) {
    return { agent: null, skipped: thrown instanceof Error ? thrown.message : String(thrown) }
  }
}

async function writeMark(job: HoldJob): Promise<void> {
  const startTicks = (await startTicksOf(process.pid)) ?? ''
  const mark: HoldMark = { guard: { pid: process.pid, startTicks }, job }
  await writeFile(`${job.markPath}.new`, JSON.stringify(mark), { mode: 0o600 })
  await rename(`${job.markPath}.new`, job.markPath)
}

function failed(thrown: unknown, lingering: boolean): HoldReport {
  const known = asBackupError(thrown)
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return { event: 'failed', reason: known?.reason ?? 'GUARD_FAILED', message, lingering }
}
