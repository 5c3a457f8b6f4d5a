// Brings an installation back on a machine that knows nothing: what a repository says of it is told
// to the services again, thing by thing, so that it can be repeated after whatever went wrong.
import { resolve } from 'node:path'
import { randomHex } from '@blockferry/core'
import { asBackupError, BackupError } from '@blockferry/errors'
import { type catalog, msFromDuration, schedule, snapshot } from '@blockferry/proto'
import type { Command } from 'commander'
import { limits } from '../config.ts'
import { type Context, printRows } from '../context.ts'
import { type ExitCode, exitCode } from '../exit_code.ts'
import { lastPart } from '../resource_name.ts'
import { retentionTexts } from '../retention_option.ts'
import { findSaved } from '../saved_installation.ts'
import { listed } from '../services.ts'
import type { Column } from '../table.ts'
import { shortDuration, timeText } from '../time_text.ts'
import { carryOut, examples, type Outcome } from '../verb.ts'
import { reachedBy } from './host.ts'

interface RecoverOptions {
  passphraseFile?: string
  backup?: string
  resume?: boolean
  dryRun?: boolean
}

/** What became of one thing. */
interface Recovered {
  kind: 'repository' | 'host' | 'policy'
  name: string
  outcome: 'made' | 'there already' | 'would be made' | 'failed'
  /** What it says, or why it failed. */
  message: string
}

export function addRecoverCommand(program: Command, outcome: Outcome): void {
  const recover = program
    .command('recover')
    .description('bring hosts, policies and repositories back from what a repository says of them')
    .argument('<folder>', "a repository's folder on the mover's machine")
    .option(
      '--passphrase-file <file>',
      'open it with the first line of this file; this installation gets a key of its own',
    )
    .option('--backup <id>', 'not the newest save but this one')
    .option('--resume', 'let policies become due: without it they come back paused')
    .option('--dry-run', 'say what would be made; makes nothing but the key of its own')
  examples(
    recover,
    'blockferry recover /srv/backup',
    'blockferry recover /srv/safe --passphrase-file /media/recovery-key --dry-run',
    'blockferry recover /srv/safe --resume',
  )
  carryOut<RecoverOptions>(
    recover,
    outcome,
    async (context, options, given = ''): Promise<ExitCode> => {
      const folder = resolve(given)
      const passphraseFile = options.passphraseFile ? resolve(options.passphraseFile) : ''
      const { settings, terminal, services } = context
      if (passphraseFile !== '') await services.move.unlockRepository({ folder, passphraseFile })
      const { save, installation } = await findSaved(context, folder, options.backup)
      if (!settings.quiet) {
        const of = installation.machine === '' ? '' : ` of ${installation.machine}`
        terminal.err(`As saved ${timeText(save.pointTime)} (${lastPart(save.name)})${of}.\n`)
      }
      const { repository: here } = await services.move.inspectRepository({ folder })
      for (const repository of installation.repositories) {
        // It may have been moved, or be mounted elsewhere on this machine.
        if (repository.repositoryId === here?.repositoryId) repository.folder = folder
      }
      const steps = await stepsOf(context, installation, options.resume ?? false)
      const rows: Recovered[] = []
      try {
        for (const step of steps) rows.push(await carryOutStep(step, rows, options.dryRun ?? false))
      } finally {
        // Also what was made before a service fell silent.
        printRows(context, rows, columns, (row) => row, 'Nothing was made.')
      }
      return rows.some((row) => row.outcome === 'failed') ? exitCode.failed : exitCode.ok
    },
  )
}

interface Step extends Pick<Recovered, 'kind' | 'name'> {
  /** What is told, for people. */
  says: string
  /** Name of the repository that has to be there. */
  repository?: string
  /** Under its name there is: nothing, the same, or something else. */
  there: 'nothing' | 'same' | 'another'
  /** Throws when it cannot be made; changes nothing. */
  check?: () => Promise<void>
  make: () => Promise<unknown>
  /** Of a policy that is there already, and paused. */
  resume?: () => Promise<unknown>
}

/** Repositories come first: policies name them. */
async function stepsOf(
  context: Context,
  installation: schedule.Installation,
  resume: boolean,
): Promise<Step[]> {
  const { services } = context
  const there = await readThere(context)
  const requestId = randomHex(8)
  return [
    ...installation.repositories.map((repository): Step => {
      const { name, folder, maintenance } = repository
      const taken = { repositoryId: lastPart(name), adopt: true, passphraseFile: '' }
      const request = { ...taken, folder, maintenance, requestId }
      const deadline = { deadlineMs: limits.rebuildTimeoutMs }
      const sameId = (other: catalog.Repository) => other.repositoryId === repository.repositoryId
      return {
        kind: 'repository',
        name: lastPart(name),
        says: repositoryText(repository),
        there: compared(there.repositories.get(name), sameId),
        check: () => checkFolder(context, repository),
        make: () => services.catalog.createRepository(request, deadline),
      }
    }),
    ...installation.hosts.map((host): Step => {
      const hostId = lastPart(host.name)
      const same = (other: snapshot.Host) => hostText(other) === hostText(host)
      return {
        kind: 'host',
        name: hostId,
        says: reachedBy(host),
        there: compared(there.hosts.get(host.name), same),
        make: () => services.snapshot.createHost({ hostId, host, requestId }),
      }
    }),
    ...installation.policies.map((saved): Step => {
      const policyId = lastPart(saved.name)
      const policy = { ...saved, paused: saved.paused || !resume }
      const present = there.policies.get(saved.name)
      const same = (other: schedule.Policy) => policyText(other) === policyText(saved)
      return {
        kind: 'policy',
        name: policyId,
        repository: lastPart(saved.repository),
        says: `keeps ${retentionTexts(saved).join('; ')}${policy.paused ? '; paused' : ''}`,
        there: compared(present, same),
        make: () => services.schedule.createPolicy({ policyId, policy, requestId }),
        ...(present?.paused && !policy.paused
          ? { resume: () => services.schedule.updatePolicy({ policy }) }
          : {}),
      }
    }),
  ]
}

/** What the services know, by name. */
async function readThere({ services }: Context): Promise<{
  repositories: Map<string, catalog.Repository>
  hosts: Map<string, snapshot.Host>
  policies: Map<string, schedule.Policy>
}> {
  const all = async <Item extends { name: string }>(
    page: Parameters<typeof listed<Item>>[2],
  ): Promise<Map<string, Item>> => {
    const { items } = await listed(Infinity, limits.pageSize, page)
    return new Map(items.map((item) => [item.name, item]))
  }
  return {
    repositories: await all(async (pageSize, pageToken) => {
      const answer = await services.catalog.listRepositories({ pageSize, pageToken })
      return { items: answer.repositories, nextPageToken: answer.nextPageToken }
    }),
    hosts: await all(async (pageSize, pageToken) => {
      const answer = await services.snapshot.listHosts({ pageSize, pageToken })
      return { items: answer.hosts, nextPageToken: answer.nextPageToken }
    }),
    policies: await all(async (pageSize, pageToken) => {
      const answer = await services.schedule.listPolicies({ pageSize, pageToken })
      return { items: answer.policies, nextPageToken: answer.nextPageToken }
    }),
  }
}

const compared = <Item>(present: Item | undefined, isSame: (item: Item) => boolean) =>
  present === undefined ? 'nothing' : isSame(present) ? 'same' : 'another'

const hostText = (host: snapshot.Host): string =>
  JSON.stringify(snapshot.Host.toJSON({ ...host, createTime: undefined }))

/** When it was created, is due next and whether it is paused is no part of what it says. */
const policyText = (policy: schedule.Policy): string =>
  JSON.stringify(
    schedule.Policy.toJSON({
      ...policy,
      createTime: undefined,
      nextRunTime: undefined,
      paused: false,
    }),
  )

function repositoryText({ folder, maintenance }: catalog.Repository): string {
  const undo = shortDuration(msFromDuration(maintenance?.undoDuration))
  return `${folder}, undo ${undo}`
}

/** Another repository in that folder would take the backups of this one's policies. */
async function checkFolder({ services }: Context, repository: catalog.Repository): Promise<void> {
  const { folder, repositoryId } = repository
  const { repository: found } = await services.move.inspectRepository({ folder })
  if (found?.repositoryId === repositoryId) return
  throw new BackupError(
    'REPOSITORY_MISSING',
    `take in ${folder}: the repository there has the id ${found?.repositoryId ?? ''}, the save says ${repositoryId}; mount the right one, or adopt it from where it is now`,
    { folder, expected: repositoryId },
  )
}

/** One that fails keeps none of the others from being made. */
async function carryOutStep(step: Step, before: Recovered[], dryRun: boolean): Promise<Recovered> {
  const { kind, name, says } = step
  const row = (outcome: Recovered['outcome'], message: string) => ({ kind, name, outcome, message })
  const lost = ({ kind: other, name: of, outcome }: Recovered) =>
    other === 'repository' && of === step.repository && outcome === 'failed'
  if (before.some(lost)) return row('failed', `repository ${step.repository} was not taken in`)
  if (step.there === 'another') {
    const hint = `here ${name} is another ${kind}; remove or change it, then repeat`
    return row('failed', hint)
  }
  try {
    if (step.there === 'same') {
      if (!step.resume || dryRun) return row('there already', says)
      await step.resume()
      return row('there already', `${says}; resumed`)
    }
    await step.check?.()
    if (dryRun) return row('would be made', says)
    await step.make()
    return row('made', says)
  } catch (thrown) {
    const failure = asBackupError(thrown)
    if (!failure || failure.reason === 'SERVICE_UNREACHABLE') throw thrown
    return row('failed', failure.message)
  }
}

const columns: Column<Recovered>[] = [
  { title: 'WHAT', cell: ({ kind }) => kind },
  { title: 'NAME', cell: ({ name }) => name, shrinkTo: 12 },
  { title: 'OUTCOME', cell: ({ outcome }) => outcome },
  { title: 'DETAIL', cell: ({ message }) => message, shrinkTo: 20 },
]
