import { resolve } from 'node:path'
import { formatBytes, randomHex } from '@blockferry/core'
import { argumentInvalid } from '@blockferry/errors'
import {
  type catalog,
  type keySlot,
  maintenanceDefault,
  move,
  msFromDuration,
  type schedule,
} from '@blockferry/proto'
import { type Command, Option } from 'commander'
import { limits } from '../config.ts'
import { type Context, printFields, printMade, printRows } from '../context.ts'
import { keySlotJson, keySlotKindName, plainJson } from '../json.ts'
import {
  changedMaintenance,
  type MaintenanceOptions,
  maintenanceFields,
  withMaintenance,
} from '../maintenance_option.ts'
import { rateArgument, undoArgument } from '../option_value.ts'
import { fullName, lastPart } from '../resource_name.ts'
import { safeText } from '../safe_text.ts'
import { listed } from '../services.ts'
import type { Column, Field } from '../table.ts'
import { shortDuration, timeText } from '../time_text.ts'
import { carryOut, examples, type Outcome } from '../verb.ts'
import { startOne } from '../watch.ts'

export function addRepositoryCommands(program: Command, outcome: Outcome): void {
  const repository = program
    .command('repository')
    .alias('repo')
    .description('folders that hold backups')
  const create = repository
    .command('create')
    .description('create a repository in a missing or empty folder')
    .argument('<name>', 'letters, digits, - _ and .')
    .argument('<folder>', "folder on the mover's machine")
    .option('--passphrase-file <file>', `encrypt it with ${passphraseHelp}`)
  withMaintenance(create)
  examples(
    create,
    'blockferry repository create nightly /srv/backup',
    'blockferry repository create year /srv/year --undo 30d --verify-every 30d',
    'blockferry repository create safe /srv/safe --passphrase-file /etc/safe.secret',
  )
  carryOut<SecretOptions & MaintenanceOptions>(
    create,
    outcome,
    async (context, options, name = '', folder = '') =>
      enter(context, { repositoryId: name, folder, adopt: false }, options),
  )
  const adopt = repository
    .command('adopt')
    .description('take in a repository that exists, with the backups it holds')
    .argument('<name>', 'the name it gets here')
    .argument('<folder>', "folder on the mover's machine")
    .option('--passphrase-file <file>', `open an encrypted one with ${passphraseHelp}`)
  withMaintenance(adopt)
  examples(adopt, 'blockferry repository adopt nightly /srv/backup')
  carryOut<SecretOptions & MaintenanceOptions>(
    adopt,
    outcome,
    async (context, options, name = '', folder = '') =>
      enter(context, { repositoryId: name, folder, adopt: true }, options),
  )
  const update = withMaintenance(repository.command('update').argument('<name>')).description(
    'change what is done to a repository by itself; what is not named stays as it is',
  )
  examples(update, 'blockferry repository update nightly --collect-every 12h')
  carryOut<MaintenanceOptions>(update, outcome, async (context, options, name = '') => {
    const { catalog: service } = context.services
    const request = { name: fullName('repositories', name) }
    // Not asked by name: that reads its folder, which may be gone for now.
    const before = (await allOf(service)).find((each) => each.name === request.name)
    const maintenance = changedMaintenance(before?.maintenance ?? maintenanceDefault, options)
    const { repository: after } = await service.updateRepository({ ...request, maintenance })
    if (after) print(context, after, '')
  })
  const unlock = repository
    .command('unlock')
    .description('give this installation a key of its own to an encrypted repository')
    .argument('<name>')
    .requiredOption('--passphrase-file <file>', passphraseHelp)
  examples(unlock, 'blockferry repository unlock safe --passphrase-file /media/recovery-key')
  carryOut<SecretOptions>(unlock, outcome, async (context, options, name = '') => {
    const request = {
      name: fullName('repositories', name),
      passphraseFile: fileOf(options),
    }
    await context.services.catalog.unlockRepository(request)
    printFields(context, { name: request.name }, [['unlocked', lastPart(name)]])
  })
  addKeyCommands(repository, outcome)
  const list = repository.command('list').description('list repositories')
  examples(list, 'blockferry repository list --output json')
  carryOut(list, outcome, async (context) => {
    const items = await allOf(context.services.catalog)
    const empty = 'No repositories. `blockferry repository create` makes one.'
    printRows(context, items, columns, listedJson, empty)
  })
  const show = repository.command('show').description('show a repository').argument('<name>')
  examples(show, 'blockferry repository show nightly')
  carryOut(show, outcome, async (context, _, name = '') => {
    const request = { name: fullName('repositories', name) }
    const answer = await context.services.catalog.getRepository(request)
    if (answer.repository) print(context, answer.repository, '')
  })
  const verify = repository
    .command('verify')
    .description('compare every stored byte with its digest, or prove every backup')
    .argument('<name>')
    .addOption(
      new Option(
        '--level <level>',
        'stored: bytes against digests, needs no key; blocks: decode all blocks of all ' +
          'backups, the longest unproven first, and name those that are damaged',
      )
        .choices(['stored', 'blocks'])
        .default('stored'),
    )
    .option('--rate <bytes>', 'read at most so much in a second: 50M', rateArgument)
    .option('-d, --detach', 'print the name of the run and return at once')
  examples(
    verify,
    'blockferry repository verify nightly',
    'blockferry repository verify nightly --level blocks --rate 50M',
  )
  carryOut<VerifyOptions>(verify, outcome, async (context, options, name = '') => {
    const { STORED, BLOCKS } = move.VerifyLevel
    const request = {
      backup: '',
      repository: fullName('repositories', name),
      requestId: randomHex(8),
      level: options.level === 'blocks' ? BLOCKS : STORED,
      bytesPerSecond: options.rate ?? 0n,
    }
    const start = async () => (await context.services.schedule.startVerify(request)).run
    return await startOne(context, start, options.detach ?? false)
  })
  const collect = repository
    .command('collect')
    .description('give back the space of what no backup needs any more')
    .argument('[name]', 'may be left out when there is only one')
    .option('--undo <time>', 'keep removed backups for so long (7d)', undoArgument)
    .option('--rate <bytes>', 'write at most so much anew in a second: 50M', rateArgument)
    .option('--shorten-undo', 'with an --undo shorter than usual: backups go for good before time')
    .option('--dry-run', 'say what would be done, change nothing')
    .option('-d, --detach', 'print the name of the run and return at once')
  examples(
    collect,
    'blockferry repository collect nightly',
    'blockferry repository collect nightly --undo 0 --dry-run',
    'blockferry repository collect nightly --undo 0 --shorten-undo',
    'blockferry repository collect nightly --dry-run',
  )
  carryOut<CollectOptions>(collect, outcome, async (context, options, name = '') => {
    const repository = name === '' ? '' : fullName('repositories', name)
    if (!options.shortenUndo && !options.dryRun) await refuseShorterUndo(context, name, options)
    const request = {
      repository,
      undoDuration: options.undo,
      bytesPerSecond: options.rate ?? 0n,
      dryRun: options.dryRun ?? false,
      requestId: randomHex(8),
    }
    const start = async () => (await context.services.schedule.startCollect(request)).run
    return await startOne(context, start, options.detach ?? false)
  })
  const clock = repository
    .command('clock')
    .description("show the repository's own time, by which removed backups go and locks end")
    .argument('<name>')
    .option('--confirm', "believe the clock of the mover's machine: it was looked at and is right")
  examples(clock, 'blockferry repository clock nightly')
  carryOut<{ confirm?: boolean }>(clock, outcome, async (context, options, name = '') => {
    const request = { name: fullName('repositories', name), confirmClock: options.confirm ?? false }
    const answer = await context.services.catalog.advanceTime(request)
    const aheadMs = msFromDuration(answer.aheadDuration)
    const ahead = `the clock is ahead by ${shortDuration(aheadMs)}, which --confirm would believe`
    printFields(context, plainJson(answer), [
      ['repository time', timeText(answer.repositoryTime)],
      ['clock', aheadMs > 0 ? ahead : 'believed'],
    ])
  })
  const save = repository
    .command('save')
    .description('save hosts, policies and repositories into it, for `blockferry recover`')
    .argument('[name]', 'may be left out when there is only one')
    .option('-d, --detach', 'print the name of the run and return at once')
  examples(save, 'blockferry repository save nightly')
  carryOut<{ detach?: boolean }>(save, outcome, async (context, options, name = '') => {
    const repository = name === '' ? '' : fullName('repositories', name)
    const request = { repository, requestId: randomHex(8) }
    const start = async () => (await context.services.schedule.startSave(request)).run
    return await startOne(context, start, options.detach ?? false)
  })
  const forget = repository
    .command('forget')
    .alias('remove')
    .description('forget a repository; its folder stays as it is and can be adopted again')
    .argument('<name>')
  examples(forget, 'blockferry repository forget nightly')
  carryOut(forget, outcome, async (context, _, name = '') => {
    const request = { name: fullName('repositories', name) }
    await context.services.catalog.deleteRepository(request)
    printFields(context, request, [['forgotten', lastPart(name)]])
  })
}

function addKeyCommands(repository: Command, outcome: Outcome): void {
  const key = repository.command('key').description('what opens an encrypted repository')
  const list = key.command('list').description('list what opens it').argument('<name>')
  examples(list, 'blockferry repository key list nightly')
  carryOut(list, outcome, async (context, _, name = '') => {
    const request = { name: fullName('repositories', name) }
    const { keySlots } = await context.services.catalog.listKeySlots(request)
    printRows(context, keySlots, keyColumns, keySlotJson, 'None: the repository is not encrypted.')
  })
  const add = key
    .command('add')
    .description('add a passphrase, or else draw a new recovery key')
    .argument('<name>')
    .option('--passphrase-file <file>', passphraseHelp)
    .option('--label <text>', 'what it is for; kept in clear', '')
  examples(add, 'blockferry repository key add nightly --label "in the safe"')
  carryOut<SecretOptions & { label: string }>(add, outcome, async (context, options, name = '') => {
    const answer = await context.services.catalog.addKeySlot({
      ...{ name: fullName('repositories', name), label: options.label },
      passphraseFile: options.passphraseFile ? fileOf(options) : '',
    })
    const { keySlot: slot, recoveryKey } = answer
    if (!slot) return
    const json = { ...(keySlotJson(slot) as object), recovery_key: recoveryKey }
    printMade(context, slot.slotId, json, [
      ['slot', slot.slotId],
      ['kind', keySlotKindName(slot)],
      ['label', slot.label],
      ...recoveryFields(recoveryKey),
    ])
    tellRecoveryKey(context, recoveryKey)
  })
  const remove = key
    .command('remove')
    .description('remove what opens it; who knows only that cannot open it any more')
    .argument('<name>')
    .argument('<slot>', '16 hex digits, as `key list` shows them')
    .option('--yes', 'confirms it')
  examples(remove, 'blockferry repository key remove nightly 6f1f0e3c22a0b9d4 --yes')
  carryOut<{ yes?: boolean }>(remove, outcome, async (context, options, name = '', slot = '') => {
    const request = { name: fullName('repositories', name) }
    const { keySlots } = await context.services.catalog.listKeySlots(request)
    const found = keySlots.find(({ slotId }) => slotId === slot)
    if (found && !options.yes) {
      const what = `${keySlotKindName(found)} "${safeText(found.label)}"`
      throw argumentInvalid('yes', 'false', `this removes the ${what}; add --yes`)
    }
    await context.services.catalog.removeKeySlot({ ...request, slotId: slot })
    printFields(context, { ...request, slot_id: slot }, [['removed', slot]])
  })
}

async function allOf(service: Context['services']['catalog']): Promise<catalog.Repository[]> {
  const { items } = await listed(Infinity, limits.pageSize, async (pageSize, pageToken) => {
    const answer = await service.listRepositories({ pageSize, pageToken })
    return { items: answer.repositories, nextPageToken: answer.nextPageToken }
  })
  return items
}

/** What an undo window shorter than the repository's takes cannot be had back: it is asked for twice. */
async function refuseShorterUndo(
  { services }: Context,
  name: string,
  { undo }: CollectOptions,
): Promise<void> {
  if (undo === undefined) return
  const meant = (await allOf(services.catalog)).filter(
    (each) => name === '' || each.name === fullName('repositories', name),
  )
  const usualMs = Math.max(
    0,
    ...meant.map((each) => msFromDuration(each.maintenance?.undoDuration)),
  )
  if (msFromDuration(undo) >= usualMs) return
  throw argumentInvalid(
    'undo',
    shortDuration(msFromDuration(undo)),
    `it is shorter than the ${shortDuration(usualMs)} of the repository, so backups would go for good before time; --dry-run lists them, --shorten-undo confirms it`,
  )
}

const passphraseHelp =
  "the first line of this file of the mover's machine: a passphrase or a recovery key"

interface VerifyOptions {
  level: 'stored' | 'blocks'
  rate?: bigint
  detach?: boolean
}

interface CollectOptions {
  undo?: schedule.StartCollectRequest['undoDuration']
  dryRun?: boolean
  shortenUndo?: boolean
  rate?: bigint
  detach?: boolean
}

interface SecretOptions {
  passphraseFile?: string
}

const fileOf = ({ passphraseFile = '' }: SecretOptions): string => resolve(passphraseFile)

const recoveryFields = (recoveryKey: string): Field[] =>
  recoveryKey === '' ? [] : [['recovery key', recoveryKey]]

/** It is told once: also to who asked for names only. */
function tellRecoveryKey({ terminal, settings }: Context, recoveryKey: string): void {
  if (recoveryKey === '' || settings.output === 'json') return
  if (settings.quiet) terminal.err(`recovery key: ${recoveryKey}\n`)
  terminal.err(
    'Write the recovery key down and keep it elsewhere: it is not shown again. When passphrase,\n' +
      'recovery key and the key of this installation are lost, nobody can read the backups.\n',
  )
}

async function enter(
  context: Context,
  what: Pick<catalog.CreateRepositoryRequest, 'repositoryId' | 'folder' | 'adopt'>,
  options: SecretOptions & MaintenanceOptions,
): Promise<void> {
  const request = {
    ...what,
    folder: resolve(what.folder),
    requestId: randomHex(8),
    passphraseFile: options.passphraseFile ? fileOf(options) : '',
    maintenance: changedMaintenance(maintenanceDefault, options),
  }
  const deadline = { deadlineMs: limits.rebuildTimeoutMs }
  const answer = await context.services.catalog.createRepository(request, deadline)
  if (!answer.repository) return
  print(context, answer.repository, answer.recoveryKey)
  tellRecoveryKey(context, answer.recoveryKey)
}

function print(context: Context, repository: catalog.Repository, recoveryKey: string): void {
  const plain = plainJson(repository) as object
  const json = recoveryKey === '' ? plain : { ...plain, recovery_key: recoveryKey }
  printMade(context, repository.name, json, [
    ['repository', lastPart(repository.name)],
    ['folder', repository.folder],
    ['id', repository.repositoryId],
    ['backups', String(repository.backupCount)],
    ['stored', formatBytes(repository.storedBytes)],
    ['since', timeText(repository.createTime)],
    ['encrypted', repository.locked ? lockedText : repository.encrypted ? 'yes' : 'no'],
    ...maintenanceFields(repository.maintenance),
    ...recoveryFields(recoveryKey),
  ])
}

const lockedText = 'yes, and no key of it is here: see `blockferry repository unlock`'

/** Whether one is encrypted is only known of one that is looked at. */
const listedJson = ({ encrypted: _, locked: __, ...repository }: catalog.Repository): unknown =>
  plainJson(repository)

const keyColumns: Column<keySlot.KeySlot>[] = [
  { title: 'SLOT', cell: ({ slotId }) => slotId },
  { title: 'KIND', cell: keySlotKindName },
  { title: 'LABEL', cell: ({ label }) => label, shrinkTo: 12 },
]

const columns: Column<catalog.Repository>[] = [
  { title: 'REPOSITORY', cell: ({ name }) => lastPart(name), shrinkTo: 12 },
  { title: 'BACKUPS', cell: ({ backupCount }) => String(backupCount), right: true },
  { title: 'FOLDER', cell: ({ folder }) => folder, shrinkTo: 16, cut: 'middle' },
  { title: 'SINCE', cell: ({ createTime }) => timeText(createTime), dispensable: 1 },
]
