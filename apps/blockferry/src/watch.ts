// Follows a run to its end. The first Ctrl-C asks the service to cancel it and waits, the second
// leaves it to itself.
import { monotonicMs, sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { schedule } from '@blockferry/proto'
import { limits } from './config.ts'
import type { Context } from './context.ts'
import { type ExitCode, exitCode } from './exit_code.ts'
import { newProgressPrinter, type ProgressPrinter } from './progress.ts'
import { lastPart } from './resource_name.ts'
import { printQueued, reportRun } from './run_report.ts'

export const hasEnded = ({ state }: schedule.Run): boolean => state >= schedule.Run_State.SUCCEEDED

/** Starts a run and follows it; a Ctrl-C while it is being started is kept for it. */
export async function startAndWatch(
  context: Context,
  start: () => Promise<schedule.Run | undefined>,
): Promise<schedule.Run> {
  const [run] = await startAllAndWatch(context, async () => {
    const started = await start()
    if (!started) throw new BackupError('INTERNAL', 'start a run: the service gave an empty answer')
    return [started]
  })
  if (!run) throw new BackupError('INTERNAL', 'start a run: the service gave an empty answer')
  return run
}

/** The same for several runs; they work side by side and are shown one after the other. */
export async function startAllAndWatch(
  context: Context,
  start: () => Promise<schedule.Run[]>,
): Promise<schedule.Run[]> {
  const leave = new AbortController()
  let started: schedule.Run[] = []
  let interruptCount = 0
  const cancel = () => {
    for (const { name } of started) void cancelRun(context, name)
  }
  const remove = context.terminal.onInterrupt(() => {
    interruptCount++
    if (interruptCount === 1) cancel()
    else leave.abort(new BackupError('CANCELLED', leftText(started)))
  })
  try {
    started = await start()
    if (interruptCount > 0) cancel()
    const ended: schedule.Run[] = []
    for (const run of started) ended.push(await followRun(context, run, leave.signal))
    return ended
  } finally {
    remove()
  }
}

const leftText = (runs: schedule.Run[]): string =>
  `watch ${runs.map(({ name }) => name).join(', ')}: left before the end; \`blockferry run watch\` shows how it goes on`

async function cancelRun(context: Context, name: string): Promise<void> {
  const { terminal, services, settings } = context
  if (!settings.quiet) {
    // The line of progress and the terminal's ^C stay above.
    const head = terminal.errIsTerminal ? '\n' : ''
    const text = `Cancelling ${lastPart(name)}; press Ctrl-C again to leave without waiting.`
    terminal.err(`${head}${text}\n`)
  }
  try {
    await services.schedule.cancelRun({ name })
  } catch (thrown) {
    // A run that has just ended or commits already says so itself when the watch ends.
    if (thrown instanceof BackupError && thrown.reason === 'RUN_NOT_CANCELLABLE') return
    terminal.err(`blockferry: cancel ${name}: ${(thrown as Error).message}\n`)
  }
}

/** Shows the progress of `run` until it has ended or `signal` aborts. */
export async function followRun(
  context: Context,
  run: schedule.Run,
  signal: AbortSignal,
): Promise<schedule.Run> {
  const { terminal, settings } = context
  const printer = newProgressPrinter(terminal, settings.quiet)
  let reachedMs = monotonicMs()
  let latest = run
  try {
    for (;;) {
      const watched = await followOnce(context, latest, printer, signal)
      if (watched.run !== latest) reachedMs = monotonicMs()
      latest = watched.run
      if (hasEnded(latest)) return latest
      // The service stopped or went away: it goes on with the run when it is back.
      if (monotonicMs() - reachedMs > limits.reconnectTimeoutMs) throw lost(latest, watched.failure)
      await sleep(limits.reconnectIntervalMs, signal)
    }
  } finally {
    printer.clear()
  }
}

async function followOnce(
  context: Context,
  run: schedule.Run,
  printer: ProgressPrinter,
  signal: AbortSignal,
): Promise<{ run: schedule.Run; failure?: unknown }> {
  let latest = run
  try {
    for await (const answer of context.services.schedule.watchRun({ name: run.name }, { signal })) {
      if (!answer.run) continue
      latest = answer.run
      printer.show(latest, monotonicMs())
    }
    return { run: latest }
  } catch (failure) {
    signal.throwIfAborted()
    if (!isPassing(failure)) throw failure
    return { run: latest, failure }
  }
}

const isPassing = (thrown: unknown): boolean =>
  thrown instanceof BackupError &&
  ['SERVICE_UNREACHABLE', 'DATABASE_UNREACHABLE', 'CANCELLED'].includes(thrown.reason)

function lost(run: schedule.Run, failure: unknown): BackupError {
  const said = failure instanceof Error ? failure.message : 'the watch ended early'
  return new BackupError(
    'SERVICE_UNREACHABLE',
    `watch ${run.name}: ${said}; the run goes on when the schedule service is back: \`blockferry run watch ${lastPart(run.name)}\``,
    { run: run.name },
  )
}

/** Starts a run and says how it ended, or only its name. */
export async function startOne(
  context: Context,
  start: () => Promise<schedule.Run | undefined>,
  detach: boolean,
): Promise<ExitCode> {
  if (!detach) return reportRun(context, await startAndWatch(context, start))
  const run = await start()
  if (run) printQueued(context, [run])
  return exitCode.ok
}
