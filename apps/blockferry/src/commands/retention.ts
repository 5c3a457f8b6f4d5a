import { formatBytes, randomHex } from '@blockferry/core'
import { argumentInvalid } from '@blockferry/errors'
import { retention } from '@blockferry/proto'
import type { Command } from 'commander'
import { limits } from '../config.ts'
import { type Context, printRows } from '../context.ts'
import { type ExitCode, exitCode } from '../exit_code.ts'
import { decisionJson, reasonName, verdictName } from '../json.ts'
import { fullName, lastPart } from '../resource_name.ts'
import { safeText } from '../safe_text.ts'
import { listed } from '../services.ts'
import type { Column } from '../table.ts'
import { timeText } from '../time_text.ts'
import { carryOut, examples, type Outcome } from '../verb.ts'
import { startOne } from '../watch.ts'

type Decision = retention.RetentionDecision

const { REMOVE } = retention.RetentionDecision_Verdict

export function addRetentionCommands(program: Command, outcome: Outcome): void {
  const noun = program.command('retention').description('which backups stay, and why')
  const explain = noun
    .command('explain')
    .description('say of each backup of the VMs of a policy whether it would stay; removes nothing')
    .argument('<policy>')
    .option('--vm <vm>', 'only this VM, as it stands in the policy')
  examples(
    explain,
    'blockferry retention explain web',
    'blockferry retention explain web --vm web-1 --output json',
  )
  carryOut<{ vm?: string }>(explain, outcome, async (context, { vm = '' }, policy = '') => {
    const name = fullName('policies', policy)
    const { items } = await listed(Infinity, limits.pageSize, async (pageSize, pageToken) => {
      const request = { name, vm, pageSize, pageToken }
      const answer = await context.services.schedule.planRetention(request)
      return { items: answer.decisions, nextPageToken: answer.nextPageToken }
    })
    printRows(context, items, columns, decisionJson, 'No backups of these VMs.')
    return noteOutcome(context, items)
  })
  applyVerb(noun, outcome)
}

function applyVerb(noun: Command, outcome: Outcome): void {
  const apply = noun
    .command('apply')
    .description(
      'remove the backups that a policy lets go; each can be undeleted for 7 days, `explain` is the dry run',
    )
    .argument('<policy>')
    .option('--yes', 'confirms it')
    .option('-d, --detach', 'print the name of the run and return at once')
  examples(apply, 'blockferry retention apply web --yes')
  carryOut<{ yes?: boolean; detach?: boolean }>(
    apply,
    outcome,
    async (context, options, policy = '') => {
      const name = fullName('policies', policy)
      if (!options.yes) {
        const what = 'this removes the backups that `retention explain` says would go; add --yes'
        throw argumentInvalid('yes', 'false', what)
      }
      const request = { name, requestId: randomHex(8) }
      const start = async () => (await context.services.schedule.startRetention(request)).run
      return await startOne(context, start, options.detach ?? false)
    },
  )
}

/** Ends in 1 when a VM would lose everything: no rule may do that, so something is broken. */
function noteOutcome({ terminal, settings }: Context, decisions: Decision[]): ExitCode {
  const goes = decisions.filter(({ verdict }) => verdict === REMOVE).length
  if (!settings.quiet && decisions.length > 0) {
    terminal.err(`${decisions.length - goes} stay, ${goes} would go. Nothing was removed.\n`)
  }
  const bare = vmsLeftBare(decisions)
  for (const vm of bare) {
    terminal.err(
      `ATTENTION: ALL backups of ${safeText(vm)} would go. Do not let this retention remove anything, and report it as a defect.\n`,
    )
  }
  return bare.length === 0 ? exitCode.ok : exitCode.failed
}

function vmsLeftBare(decisions: Decision[]): string[] {
  const keeping = new Set(
    decisions.flatMap(({ verdict, vmIdentity }) => (verdict === REMOVE ? [] : [vmIdentity])),
  )
  const losing = decisions.filter(({ vmIdentity }) => !keeping.has(vmIdentity))
  const names = losing.map(({ vmDisplayName, vmIdentity }) => [vmIdentity, vmDisplayName] as const)
  return [...new Map(names)].map(([identity, name]) => `${name} (${identity})`)
}

const columns: Column<Decision>[] = [
  { title: 'BACKUP', cell: ({ backup }) => lastPart(backup) },
  { title: 'VM', cell: ({ vmDisplayName }) => vmDisplayName, shrinkTo: 8, dispensable: 2 },
  { title: 'TIME', cell: ({ pointTime }) => timeText(pointTime), dispensable: 3 },
  { title: 'SIZE', cell: ({ sizeBytes }) => formatBytes(sizeBytes), right: true, dispensable: 4 },
  {
    title: 'STORED',
    cell: ({ storedBytes }) => formatBytes(storedBytes),
    right: true,
    dispensable: 5,
  },
  { title: 'VERDICT', cell: ({ verdict }) => verdictName(verdict) },
  { title: 'WHY', cell: ({ reasons }) => reasons.map(reasonText).join(', '), shrinkTo: 20 },
]

const reasonText = ({ kind, detail }: retention.RetentionReason): string =>
  `${reasonName(kind)} ${detail}`.trim()
