import { formatBytes, formatDuration, randomHex } from '@blockferry/core'
import { type backup, move, msFromDuration } from '@blockferry/proto'
import type { Command } from 'commander'
import { backupRequest, type StartOptions } from '../backup_request.ts'
import { type Context, countOf, noteMore, printFields, printRows } from '../context.ts'
import { usageError } from '../failure.ts'
import { consistencyName, levelName, methodName, plainJson } from '../json.ts'
import {
  compressionArgument,
  compressionHelp,
  countArgument,
  levelArgument,
  lockArgument,
  rateArgument,
} from '../option_value.ts'
import { findBackup, lastPart, listBackups, repositoryOf } from '../resource_name.ts'
import { decisionText, uncoveredText } from '../run_report.ts'
import type { Column } from '../table.ts'
import { timeText } from '../time_text.ts'
import { carryOut, collect, examples, type Outcome } from '../verb.ts'
import { startOne } from '../watch.ts'

export function addBackupCommands(program: Command, outcome: Outcome): void {
  // Options of `backup` itself must not swallow those of `backup list`.
  const noun = program.command('backup').enablePositionalOptions()
  startVerb(noun, outcome)
  startVerb(noun.command('start'), outcome)
  listVerb(noun.command('list'), outcome)
  showVerb(noun.command('show'), outcome)
  verifyVerb(noun.command('verify'), outcome)
  for (const change of changes) changeVerb(noun.command(change.verb), change, outcome)
  listVerb(program.command('backups'), outcome)
  for (const name of ['snapshots', 'points']) {
    listVerb(program.command(name, { hidden: true }), outcome)
  }
  const point = program.command('point', { hidden: true }).description('the same as backup')
  listVerb(point.command('list'), outcome)
  verifyVerb(program.command('verify'), outcome)
}

function startVerb(command: Command, outcome: Outcome): void {
  command
    .description('back up a VM, or disk images as one machine, and watch it')
    .argument('[what...]', 'a VM: name, identity, hosts/HOST/vms/VM; with --vm: image files')
    .option('--vm <name>', 'the name images are kept under')
    .option('--repository, --to <name>', 'where it goes; may be left out when there is only one')
    .option('--level <level>', 'full, incremental (default) or differential', levelArgument)
    .option('--full', 'the same as --level full')
    .option('--no-quiesce', "do not freeze the guest's file systems")
    .option('--compression <codec>', compressionHelp, compressionArgument)
    .option('--changed-blocks <file>', 'JSON with the blocks that changed since --base')
    .option('--base <backup>', 'the backup that --changed-blocks counts from')
    .option('--tag <tag>', 'a word to put on the backup; repeatable', collect)
    .option('--lock <time>', 'nobody can remove it for so long: 30d', lockArgument)
    .option('-d, --detach', 'print the name of the run and return at once')
  examples(
    command,
    'blockferry backup web-1',
    'blockferry backup web-1 --repository nightly --level full',
    'blockferry backup /images/db.qcow2 /images/log.raw --vm db',
    'blockferry backup db.raw --vm db --changed-blocks db.json --base latest:db',
  )
  carryOut<StartOptions & { detach?: boolean }>(
    command,
    outcome,
    async (context, options, ...what) => {
      const request = await backupRequest(context.services, what, options)
      const start = async () => (await context.services.schedule.startBackup(request)).run
      return await startOne(context, start, options.detach ?? false)
    },
  )
}

interface ListOptions {
  removed?: boolean
  vm?: string
  repository?: string
  limit?: string
}

function listVerb(command: Command, outcome: Outcome): Command {
  command
    .description('list backups, newest first')
    .argument('[vm]', 'only those of this VM: name or identity')
    .option('--vm <vm>', 'the same')
    .option('--repository <name>', 'only those in this repository')
    .option('--removed', 'also removed ones that can be undeleted')
    .option('--limit <count>', 'at most so many', countArgument)
  examples(command, 'blockferry backups', 'blockferry backups web-1 --output json')
  return carryOut<ListOptions>(command, outcome, async (context, options, vm) => {
    if (vm !== undefined && options.vm !== undefined) throw usageError('list backups: name one VM')
    const count = countOf(options.limit)
    const filter = {
      vm: vm ?? options.vm ?? '',
      repository: options.repository ?? '',
      showRemoved: options.removed ?? false,
    }
    const { items, more } = await listBackups(context.services, filter, count)
    printRows(context, items, columns, plainJson, 'No backups. `blockferry backup VM` makes one.')
    noteMore(context, more, options.limit)
  })
}

function showVerb(command: Command, outcome: Outcome): Command {
  command
    .description('show a backup: disks, sizes, decisions, and what was left out')
    .argument('<backup>', 'id, full name, or latest:VM')
  examples(command, 'blockferry backup show latest:web-1')
  return carryOut(command, outcome, async (context, _, text = '') =>
    printBackup(context, await findBackup(context.services, text)),
  )
}

function verifyVerb(command: Command, outcome: Outcome): Command {
  command
    .description('prove a backup: decode every block, check its digest and the root of each disk')
    .argument('<backup>', 'id, full name, or latest:VM')
    .option('--rate <bytes>', 'read at most so much in a second: 50M', rateArgument)
    .option('-d, --detach', 'print the name of the run and return at once')
  examples(command, 'blockferry verify latest:web-1')
  return carryOut<VerifyOptions>(command, outcome, async (context, options, text = '') => {
    const { name } = await findBackup(context.services, text)
    const request = {
      ...{ backup: name, repository: '', requestId: randomHex(8) },
      ...{ level: move.VerifyLevel.BLOCKS, bytesPerSecond: options.rate ?? 0n },
    }
    const start = async () => (await context.services.schedule.startVerify(request)).run
    return await startOne(context, start, options.detach ?? false)
  })
}

interface VerifyOptions {
  rate?: bigint
  detach?: boolean
}

type Catalog = Context['services']['catalog']

interface Change {
  verb: string
  description: string
  done: string
  call: (catalog: Catalog, name: string) => Promise<{ backup?: backup.Backup | undefined }>
}

const changes: Change[] = [
  {
    verb: 'remove',
    description:
      'remove a backup; for 7 days it can be undeleted, then a collection gives its space back',
    done: 'removed',
    call: (catalog, name) => catalog.removeBackup({ name }),
  },
  {
    verb: 'undelete',
    description: 'have a removed backup back; `backup list --removed` shows them',
    done: 'undeleted',
    call: (catalog, name) => catalog.undeleteBackup({ name }),
  },
  {
    verb: 'hold',
    description: 'keep a backup from being removed, by anybody, until it is released',
    done: 'held',
    call: (catalog, name) => catalog.holdBackup({ name }),
  },
  {
    verb: 'release',
    description: 'undo hold',
    done: 'released',
    call: (catalog, name) => catalog.releaseBackup({ name }),
  },
]

function changeVerb(command: Command, { verb, description, done, call }: Change, outcome: Outcome) {
  command.description(description).argument('<backup>', 'id, full name, or latest:VM')
  examples(command, `blockferry backup ${verb} latest:web-1`)
  return carryOut(command, outcome, async (context, _, text = '') => {
    const { name } = await findBackup(context.services, text)
    const { backup: after } = await call(context.services.catalog, name)
    if (after) printFields(context, plainJson(after), [[done, lastPart(name)]])
  })
}

/** What a verification last said of it. */
const proof = ({ verifyTime, damaged }: backup.Backup): string =>
  verifyTime ? `${damaged ? 'DAMAGED' : 'proven'} ${timeText(verifyTime)}` : ''

/** What keeps a backup, or that it is about to go. */
function standing({ held, removeTime, lockUntilTime }: backup.Backup): string {
  if (removeTime) return `removed ${timeText(removeTime)}`
  if (held) return 'held'
  return lockUntilTime ? `locked until ${timeText(lockUntilTime)}` : ''
}

const sumOf = (each: backup.Backup, pick: (disk: backup.BackupDisk) => bigint): string =>
  formatBytes(each.disks.reduce((sum, disk) => sum + pick(disk), 0n))

const columns: Column<backup.Backup>[] = [
  { title: 'BACKUP', cell: ({ name }) => lastPart(name) },
  { title: 'VM', cell: ({ vmDisplayName }) => vmDisplayName, shrinkTo: 12 },
  { title: 'TIME', cell: ({ pointTime }) => timeText(pointTime) },
  { title: 'SIZE', cell: (each) => sumOf(each, ({ sizeBytes }) => sizeBytes), right: true },
  {
    title: 'READ',
    cell: (each) => sumOf(each, ({ readBytes }) => readBytes),
    right: true,
    dispensable: 3,
  },
  {
    title: 'STORED',
    cell: (each) => sumOf(each, ({ storedBytes }) => storedBytes),
    right: true,
    dispensable: 1,
  },
  {
    title: 'REPOSITORY',
    cell: ({ name }) => repositoryOf(name),
    shrinkTo: 10,
    dispensable: 2,
  },
  { title: 'LEVEL', cell: ({ level }) => levelName(level), dispensable: 4 },
  { title: 'STANDING', cell: standing, dispensable: 2 },
  { title: 'PROOF', cell: proof, dispensable: 2 },
  { title: 'CONSISTENCY', cell: ({ consistency }) => consistencyName(consistency), dispensable: 5 },
]

function printBackup(context: Context, found: backup.Backup): void {
  const length = (duration: backup.Backup['freezeDuration']) => {
    const ms = msFromDuration(duration)
    return ms === 0 ? '' : formatDuration(ms)
  }
  printFields(context, plainJson(found), [
    ['backup', lastPart(found.name)],
    ['repository', repositoryOf(found.name)],
    ['vm', found.vmDisplayName],
    ['identity', found.vmIdentity],
    ['host', lastPart(found.host)],
    ['point', timeText(found.pointTime)],
    ['started', timeText(found.startTime)],
    ['ended', timeText(found.endTime)],
    ['level', levelName(found.level)],
    ['method', methodName(found.method)],
    ['consistency', consistencyName(found.consistency)],
    ['frozen', length(found.freezeDuration)],
    ['paused', length(found.pauseDuration)],
    ['base', found.baseBackup],
    ['policy', lastPart(found.policy)],
    ['standing', standing(found)],
    ['proof', proof(found) || 'not verified yet'],
    ['tags', found.tags.join(' ')],
    ['disks', found.disks.map(diskText)],
    ['left out', found.uncoveredDisks.map(uncoveredText)],
    ['decisions', found.decisions.map(decisionText)],
  ])
}

const diskText = (disk: backup.BackupDisk): string =>
  `${disk.disk}: ${formatBytes(disk.sizeBytes)} ${disk.format}, read ${formatBytes(disk.readBytes)}, stored ${formatBytes(disk.storedBytes)}`
