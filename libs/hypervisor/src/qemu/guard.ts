// The guard as its starter sees it: a process of its own that freezes, pauses,
// takes the point, resumes and thaws. It is started early, because a process takes
// some 300 ms to come up, and gets its task when everything else is prepared.
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { after } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import {
  guardMsMax,
  type HoldJob,
  type HoldReport,
  type HoldResult,
  type HoldStep,
} from './hold.ts'

// Connecting to the monitor and to the agent before anything is held.
const connectMsMax = 12_000

export type OnHoldStep = (step: HoldStep, guardPid: number) => void

export class Guard implements Disposable {
  #child: ChildProcess
  #ended: Promise<void>
  #free = false

  constructor() {
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
    const main = fileURLToPath(new URL(`./guard_main.${extension}`, import.meta.url))
    const conditions = extension === 'ts' ? ['--conditions=@blockferry/source'] : []
    // In its own process group: a signal to ours, such as Ctrl-C, does not reach it.
    this.#child = spawn(process.execPath, ['--no-warnings', ...conditions, main], {
      stdio: ['pipe', 'pipe', 'ignore'],
      detached: true,
    })
    this.#ended = new Promise((resolve) => {
      this.#child.once('exit', () => resolve())
      this.#child.once('error', () => resolve())
    })
    this.#child.stdin?.on('error', () => {})
  }

  /**
   * Runs a task to its end. Rejects with the guard's failure, or with GUARD_FAILED when it ended
   * or overran: then the caller lets the guest go on by `undo`.
   */
  async run(
    kind: 'hold' | 'undo',
    job: HoldJob,
    onStep: OnHoldStep = () => {},
  ): Promise<HoldResult> {
    const { promise, resolve, reject } = Promise.withResolvers<HoldResult>()
    let cancel = after(connectMsMax, () => reject(overran(job, 'connect')))
    let held = kind === 'undo'
    const lines = createInterface({ input: this.#child.stdout as NodeJS.ReadableStream })
    lines.on('line', (line) => {
      const report = parseReport(line)
      if (report?.event === 'step') {
        onStep(report.step, this.#child.pid ?? 0)
        if (held || report.step === 'connect') return
        // The clock runs from the first thing that holds the guest.
        held = true
        cancel()
        cancel = after(guardMsMax, () => reject(overran(job, report.step)))
      } else if (report?.event === 'failed') {
        this.#free = report.lingering
        reject(new BackupError(report.reason, report.message, { vm: job.vmName }))
      } else if (report) resolve(report)
    })
    const gone = new BackupError(
      'GUARD_FAILED',
      `the guard process of VM ${job.vmName} ended before its work was done`,
      { vm: job.vmName },
    )
    // Its last line may still be on the way when its end is known.
    const closed = new Promise<void>((done) => lines.once('close', done))
    void Promise.all([this.#ended, closed]).then(() => reject(gone))
    this.#child.stdin?.write(`${JSON.stringify({ kind, job })}\n`)
    try {
      return await promise
    } finally {
      cancel()
      if (this.#free) this.#letGo()
    }
  }

  /** Ends the process, also a stopped one; one that waits for a late thaw stays. */
  async end(): Promise<void> {
    if (this.#free) return
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGKILL')
    }
    await this.#ended
  }

  [Symbol.dispose](): void {
    void this.end()
  }

  #letGo(): void {
    this.#child.stdin?.destroy()
    this.#child.stdout?.destroy()
    this.#child.unref()
  }
}

function parseReport(line: string): HoldReport | null {
  try {
    return JSON.parse(line)
  } catch {
    return null
  }
}

const overran = (job: HoldJob, step: HoldStep) =>
  new BackupError(
    'GUARD_FAILED',
    `the guard process of VM ${job.vmName} hung in step ${step}; it was ended`,
    { vm: job.vmName, step },
  )

/** Lets the guest go on by a new guard process after the first one ended or hung. */
export async function undo(job: HoldJob): Promise<void> {
  const guard = new Guard()
  try {
    await guard.run('undo', job)
  } finally {
    await guard.end()
  }
}
