import { formatDuration, randomHex } from '@blockferry/core'
import { backup, type move, msFromDuration, type schedule } from '@blockferry/proto'
import type { Command } from 'commander'
import { limits } from '../config.ts'
import { type Context, printFields, printMade, printRows } from '../context.ts'
import { worstOf } from '../exit_code.ts'
import { usageError } from '../failure.ts'
import { levelName, plainJson } from '../json.ts'
import {
  compressionArgument,
  compressionHelp,
  compressionText,
  levelArgument,
  lockArgument,
  repeatArgument,
} from '../option_value.ts'
import { fullName, lastPart } from '../resource_name.ts'
import {
  changeRetention,
  type RetentionOptions,
  retentionTexts,
  withRetention,
  withRetentionOfVm,
} from '../retention_option.ts'
import { printQueued, reportRun, reportRuns } from '../run_report.ts'
import { listed } from '../services.ts'
import type { Column } from '../table.ts'
import { shortDuration, timeText } from '../time_text.ts'
import { carryOut, collect, examples, type Outcome } from '../verb.ts'
import { startAllAndWatch } from '../watch.ts'

interface PolicyOptions extends RetentionOptions {
  vm?: string[]
  repository?: string
  every?: ReturnType<typeof repeatArgument>
  byHand?: boolean
  level?: backup.Level
  quiesce?: boolean
  compression?: move.Compression
  tag?: string[]
  lock?: ReturnType<typeof lockArgument>
  pause?: boolean
  resume?: boolean
}

export function addPolicyCommands(program: Command, outcome: Outcome): void {
  const policy = program.command('policy').description('which VMs are backed up how often to where')
  const create = withFields(policy.command('create').argument('<name>'))
    .description('create a policy')
    .option('--paused', 'nothing becomes due until it is resumed')
  examples(
    create,
    'blockferry policy create web --vm web-1 --vm web-2 --to nightly --every 1d',
    'blockferry policy create db --vm db --to nightly --every 1h --keep-hourly 24 \\',
    '    --keep-daily 14 --keep-monthly 12 --retention-time-zone Europe/Berlin',
  )
  carryOut<PolicyOptions & { paused?: boolean }>(
    create,
    outcome,
    async (context, options, name = '') => {
      if (!options.vm || options.repository === undefined) {
        throw usageError(`create policy ${name}: give --vm and --to`)
      }
      const draft = { ...emptyPolicy, paused: options.paused ?? false }
      const request = { policyId: name, policy: changed(draft, options), requestId: randomHex(8) }
      const answer = await context.services.schedule.createPolicy(request)
      if (answer.policy) print(context, answer.policy)
    },
  )
  const update = withRetentionOfVm(withFields(policy.command('update').argument('<name>')))
    .description('change a policy; what is not named stays as it is')
    .option('--by-hand', 'no repeat any more')
    .option('--pause', 'nothing becomes due until it is resumed')
    .option('--resume', 'takes --pause back')
  examples(
    update,
    'blockferry policy update web --every 12h',
    'blockferry policy update web --pause',
    'blockferry policy update web --of-vm web-1 --keep-daily 90',
  )
  carryOut<PolicyOptions>(update, outcome, async (context, options, name = '') => {
    const request = { name: fullName('policies', name) }
    const { policy: before } = await context.services.schedule.getPolicy(request)
    const after = { policy: changed(before ?? emptyPolicy, options) }
    const answer = await context.services.schedule.updatePolicy(after)
    if (answer.policy) print(context, answer.policy)
  })
  addReading(policy, outcome)
  addRun(policy, outcome)
}

const withFields = (command: Command): Command =>
  withRetention(
    command
      .option('--vm <vm>', 'identity or name of a VM; repeatable', collect)
      .option('--to, --repository <name>', 'where backups go')
      .option('--every <time>', 'from one start to the next: 30m, 12h, 1d', repeatArgument)
      .option('--level <level>', 'full, incremental or differential', levelArgument)
      .option('--no-quiesce', "do not freeze the guests' file systems")
      .option('--compression <codec>', compressionHelp, compressionArgument)
      .option('--tag <tag>', 'a word to put on its backups; repeatable', collect)
      .option('--lock <time>', 'nobody can remove its backups for so long: 30d', lockArgument),
  )

const emptyPolicy: schedule.Policy = {
  name: '',
  vms: [],
  repository: '',
  level: backup.Level.INCREMENTAL,
  skipQuiesce: false,
  paused: false,
  compression: undefined,
  vmRetentions: [],
  tags: [],
}

function changed(before: schedule.Policy, options: PolicyOptions): schedule.Policy {
  const after = { ...before }
  if (options.vm) after.vms = options.vm
  Object.assign(after, changeRetention(after, options))
  // Rules of a VM that is no longer in the policy go with it.
  after.vmRetentions = after.vmRetentions.filter(
    ({ vm }) => vm === options.ofVm || after.vms.includes(vm),
  )
  if (options.repository !== undefined) {
    after.repository = fullName('repositories', options.repository)
  }
  if (options.every) after.repeatDuration = options.every
  if (options.byHand) after.repeatDuration = undefined
  if (options.level !== undefined) after.level = options.level
  if (options.quiesce === false) after.skipQuiesce = true
  if (options.compression) after.compression = options.compression
  if (options.tag) after.tags = options.tag
  if (options.lock) after.lockDuration = options.lock
  if (options.pause) after.paused = true
  if (options.resume) after.paused = false
  return after
}

function addReading(policy: Command, outcome: Outcome): void {
  const list = policy.command('list').description('list policies')
  examples(list, 'blockferry policy list')
  carryOut(list, outcome, async (context) => {
    const { items } = await listed(Infinity, limits.pageSize, async (pageSize, pageToken) => {
      const answer = await context.services.schedule.listPolicies({ pageSize, pageToken })
      return { items: answer.policies, nextPageToken: answer.nextPageToken }
    })
    printRows(
      context,
      items,
      columns,
      plainJson,
      'No policies. `blockferry policy create` makes one.',
    )
  })
  const show = policy.command('show').description('show a policy').argument('<name>')
  examples(show, 'blockferry policy show web')
  carryOut(show, outcome, async (context, _, name = '') => {
    const request = { name: fullName('policies', name) }
    const answer = await context.services.schedule.getPolicy(request)
    if (answer.policy) print(context, answer.policy)
  })
  const remove = policy
    .command('delete')
    .alias('remove')
    .description('delete a policy; its backups and runs stay')
    .argument('<name>')
  examples(remove, 'blockferry policy delete web')
  carryOut(remove, outcome, async (context, _, name = '') => {
    const request = { name: fullName('policies', name) }
    await context.services.schedule.deletePolicy(request)
    printFields(context, request, [['deleted', lastPart(name)]])
  })
}

function addRun(policy: Command, outcome: Outcome): void {
  const run = policy
    .command('run')
    .description('back up every VM of a policy now')
    .argument('<name>')
    .option('-d, --detach', 'return at once')
  examples(run, 'blockferry policy run web', 'blockferry policy run web --detach')
  carryOut<{ detach?: boolean }>(run, outcome, async (context, { detach }, name = '') => {
    const request = { name: fullName('policies', name), requestId: randomHex(8) }
    const start = async () => (await context.services.schedule.startPolicy(request)).runs
    if (detach) {
      printQueued(context, await start())
      return worstOf([])
    }
    const ended = await startAllAndWatch(context, start)
    return reportRuns(context, ended, reportRun)
  })
}

const print = (context: Context, policy: schedule.Policy): void =>
  printMade(context, policy.name, plainJson(policy), [
    ['policy', lastPart(policy.name)],
    ['vms', policy.vms],
    ['repository', lastPart(policy.repository)],
    ['every', everyText(policy)],
    ['level', levelName(policy.level)],
    ['quiesce', policy.skipQuiesce ? 'no' : 'yes'],
    ['compression', policy.compression ? compressionText(policy.compression) : 'lz4'],
    ['keeps', retentionTexts(policy)],
    ['tags', policy.tags.join(' ')],
    ['locked for', lockText(policy)],
    ['next run', timeText(policy.nextRunTime)],
  ])

const lockText = ({ lockDuration }: schedule.Policy): string =>
  lockDuration ? shortDuration(msFromDuration(lockDuration)) : ''

function everyText({ repeatDuration, paused }: schedule.Policy): string {
  const repeat = repeatDuration ? formatDuration(msFromDuration(repeatDuration)) : 'by hand'
  return paused ? `${repeat} (paused)` : repeat
}

const columns: Column<schedule.Policy>[] = [
  { title: 'POLICY', cell: ({ name }) => lastPart(name), shrinkTo: 12 },
  { title: 'VMS', cell: ({ vms }) => vms.join(' '), shrinkTo: 12 },
  { title: 'REPOSITORY', cell: ({ repository }) => lastPart(repository), shrinkTo: 10 },
  { title: 'EVERY', cell: everyText },
  { title: 'NEXT RUN', cell: ({ nextRunTime }) => timeText(nextRunTime), dispensable: 1 },
  { title: 'LEVEL', cell: ({ level }) => levelName(level), dispensable: 2 },
]
