import { formatDuration } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { msFromDuration, type schedule } from '@blockferry/proto'
import type { Command } from 'commander'
import { limits } from '../config.ts'
import { type Context, countOf, noteMore, printFields, printRows } from '../context.ts'
import type { ExitCode } from '../exit_code.ts'
import { consistencyName, kindName, levelName, runJson, stateName } from '../json.ts'
import { countArgument } from '../option_value.ts'
import { fullName, lastPart } from '../resource_name.ts'
import { amounts, decisionText, elapsedMs, reportRun, uncoveredText } from '../run_report.ts'
import { listed } from '../services.ts'
import type { Column } from '../table.ts'
import { timeText } from '../time_text.ts'
import { carryOut, examples, type Outcome } from '../verb.ts'
import { followRun } from '../watch.ts'

export function addRunCommands(program: Command, outcome: Outcome): void {
  const run = program.command('run').description('backups, restores and verifications at work')
  listVerb(run.command('list'), outcome)
  listVerb(program.command('runs'), outcome).description('the same as run list')
  const show = run.command('show').description('show a run').argument('<run>')
  examples(show, 'blockferry run show 20261123-071500-4f2a9c')
  carryOut(show, outcome, async (context, _, name = '') =>
    printRun(context, await readRun(context, name)),
  )
  const watch = run
    .command('watch')
    .description('follow a run to its end; Ctrl-C only stops watching')
    .argument('<run>')
  examples(watch, 'blockferry run watch 20261123-071500-4f2a9c')
  carryOut(watch, outcome, async (context, _, name = '') => watchRun(context, name))
  cancelVerb(run.command('cancel'), outcome)
  cancelVerb(program.command('cancel'), outcome).description('the same as run cancel')
}

interface ListOptions {
  vm?: string
  active?: boolean
  limit?: string
}

function listVerb(command: Command, outcome: Outcome): Command {
  command
    .description('list runs, newest first')
    .option('--vm <vm>', 'only those of this VM: identity or name')
    .option('--active', 'only those that have not ended')
    .option('--limit <count>', 'at most so many', countArgument)
  examples(command, 'blockferry runs', 'blockferry run list --active --output json')
  return carryOut<ListOptions>(command, outcome, async (context, options) => {
    const count = countOf(options.limit)
    const { items, more } = await listed(count, limits.pageSize, async (pageSize, pageToken) => {
      const filter = { vm: options.vm ?? '', activeOnly: options.active ?? false }
      const answer = await context.services.schedule.listRuns({ ...filter, pageSize, pageToken })
      return { items: answer.runs, nextPageToken: answer.nextPageToken }
    })
    printRows(context, items, columns, runJson, 'No runs.')
    noteMore(context, more, options.limit)
  })
}

function cancelVerb(command: Command, outcome: Outcome): Command {
  command.description('ask a run to stop; what it made so far is undone').argument('<run>')
  examples(command, 'blockferry cancel 20261123-071500-4f2a9c')
  return carryOut(command, outcome, async (context, _, name = '') => {
    const answer = await context.services.schedule.cancelRun({ name: fullName('runs', name) })
    if (answer.run) printRun(context, answer.run)
  })
}

async function readRun(context: Context, name: string): Promise<schedule.Run> {
  const { run } = await context.services.schedule.getRun({ name: fullName('runs', name) })
  if (!run) throw new BackupError('INTERNAL', `read run ${name}: the service gave an empty answer`)
  return run
}

async function watchRun(context: Context, name: string): Promise<ExitCode> {
  const run = await readRun(context, name)
  const leave = new AbortController()
  const remove = context.terminal.onInterrupt(() =>
    leave.abort(new BackupError('CANCELLED', `watch ${run.name}: left; the run goes on`)),
  )
  try {
    return reportRun(context, await followRun(context, run, leave.signal))
  } finally {
    remove()
  }
}

const columns: Column<schedule.Run>[] = [
  { title: 'RUN', cell: ({ name }) => lastPart(name) },
  { title: 'KIND', cell: kindName },
  { title: 'VM', cell: (run) => run.vmDisplayName || run.vmIdentity, shrinkTo: 12 },
  {
    title: 'STATE',
    cell: (run) => (run.cancelRequested && !run.endTime ? 'cancelling' : stateName(run)),
  },
  { title: 'TOOK', cell: tookText, right: true },
  { title: 'REASON', cell: ({ error }) => error?.reason ?? '', shrinkTo: 12 },
  { title: 'QUEUED', cell: ({ createTime }) => timeText(createTime), dispensable: 1 },
]

function tookText(run: schedule.Run): string {
  const ms = elapsedMs(run)
  return ms === null ? '' : formatDuration(ms)
}

const durationText = (duration: schedule.Run['freezeDuration']): string => {
  const ms = msFromDuration(duration)
  return ms === 0 ? '' : formatDuration(ms)
}

const printRun = (context: Context, run: schedule.Run): void =>
  printFields(context, runJson(run), [
    ['run', lastPart(run.name)],
    ['kind', kindName(run)],
    ['state', stateName(run) + (run.cancelRequested && !run.endTime ? ' (cancelling)' : '')],
    ['vm', run.vmDisplayName || run.vmIdentity],
    ['policy', lastPart(run.policy)],
    ['backup', run.backup],
    ['level', levelName(run.level)],
    ['consistency', consistencyName(run.consistency)],
    ['moved', run.disks.length === 0 ? '' : amounts(run)],
    ['frozen', durationText(run.freezeDuration)],
    ['paused', durationText(run.pauseDuration)],
    ['queued', timeText(run.createTime)],
    ['started', timeText(run.startTime)],
    ['ended', timeText(run.endTime)],
    ['attempts', run.attemptCount > 1 ? String(run.attemptCount) : ''],
    ['target', run.targetFolder],
    ['start script', run.startScript],
    ['decisions', run.decisions.map(decisionText)],
    ['left out', run.uncoveredDisks.map(uncoveredText)],
    ['error', run.error ? `${run.error.reason}: ${run.error.message}` : ''],
  ])
