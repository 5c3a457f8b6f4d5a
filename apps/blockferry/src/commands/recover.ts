// Brings an installation back on a machine that knows nothing: what a repository says of it is told
// to the services again, thing by thing, so that it can be repeated after whatever went wrong.
import { resolve } from 'node:path'
import { randomHex } from '@blockferry/core'
import { asBackupError, BackupError } from '@blockferry/errors'
import { type backup, installationVm, schedule } from '@blockferry/proto'
import type { Command } from 'commander'
import { limits } from '../config.ts'
import { type Context, printRows } from '../context.ts'
import { type ExitCode, exitCode } from '../exit_code.ts'
import { lastPart } from '../resource_name.ts'
import { listed } from '../services.ts'
import type { Column } from '../table.ts'
import { timeText } from '../time_text.ts'
import { carryOut, examples, type Outcome } from '../verb.ts'

interface RecoverOptions {
  passphraseFile?: string
  backup?: string
  dryRun?: boolean
}

/** What became of one thing. */
interface Recovered {
  kind: 'repository' | 'host' | 'policy'
  name: string
  outcome: 'made' | 'there already' | 'would be made' | 'failed'
  message: string
}

export function addRecoverCommand(program: Command, outcome: Outcome): void {
  const recover = program
    .command('recover')
    .description('bring hosts, policies and repositories back from what a repository says of them')
    .argument('<folder>', "a repository's folder on the mover's machine")
    .option('--passphrase-file <file>', 'open it with the first line of this file')
    .option('--backup <id>', 'not the newest save but this one')
    .option('--dry-run', 'say what would be made, make nothing')
  examples(
    recover,
    'blockferry recover /srv/backup',
    'blockferry recover /srv/safe --passphrase-file /media/recovery-key --dry-run',
  )
  carryOut<RecoverOptions>(
    recover,
    outcome,
    async (context, options, given = ''): Promise<ExitCode> => {
      const folder = resolve(given)
      const passphraseFile = options.passphraseFile ? resolve(options.passphraseFile) : ''
      const { move } = context.services
      if (passphraseFile !== '') await move.unlockRepository({ folder, passphraseFile })
      const save = await findSave(context, folder, options.backup)
      const installation = installationOf(save)
      const { repository: here } = await move.inspectRepository({ folder })
      for (const repository of installation.repositories) {
        // It may have been moved, or be mounted elsewhere on this machine.
        if (repository.repositoryId === here?.repositoryId) repository.folder = folder
      }
      const steps = stepsOf(context, installation)
      const rows: Recovered[] = []
      for (const step of steps)
        rows.push(options.dryRun ? wouldBeMade(step) : await carryOutStep(step))
      printRows(
        context,
        rows,
        columns,
        (row) => row,
        'The save names no host, policy or repository.',
      )
      return rows.some((row) => row.outcome === 'failed') ? exitCode.failed : exitCode.ok
    },
  )
}

/** The newest save in the repository, or the one that is asked for. */
async function findSave(
  { services, settings, terminal }: Context,
  folder: string,
  id: string | undefined,
): Promise<backup.Backup> {
  const { items } = await listed(Infinity, limits.pageSize, async (pageSize, pageToken) => {
    const request = { folder, vmIdentity: '', pageSize, pageToken }
    const answer = await services.move.listManifests(request)
    return { items: answer.backups, nextPageToken: answer.nextPageToken }
  })
  const timeOf = ({ pointTime }: backup.Backup): number => pointTime?.getTime() ?? 0
  const saves = items
    .filter(({ vmIdentity }) => vmIdentity.startsWith(installationVm))
    .sort((one, other) => timeOf(other) - timeOf(one))
  const found = id === undefined ? saves[0] : saves.find(({ name }) => lastPart(name) === id)
  if (!found) {
    const known = saves.map(({ name }) => lastPart(name)).join(', ') || 'none'
    throw new BackupError(
      'NOT_FOUND',
      `find ${id === undefined ? 'a save' : `save ${id}`} of an installation in ${folder}: it holds ${known}; adopt the repository with \`blockferry repository adopt\` and tell hosts and policies anew`,
      { folder },
    )
  }
  if (!settings.quiet) {
    const others = new Set(saves.map(({ vmIdentity }) => vmIdentity)).size - 1
    const hint = others > 0 ? `; ${others} other installations saved here, see --backup` : ''
    terminal.err(`As saved ${timeText(found.pointTime)} (${lastPart(found.name)})${hint}.\n`)
  }
  return found
}

function installationOf({ name, vmConfigJson }: backup.Backup): schedule.Installation {
  try {
    return schedule.Installation.fromJSON(JSON.parse(vmConfigJson))
  } catch (cause) {
    const message = `read save ${lastPart(name)}: it is no installation; choose another with --backup`
    throw new BackupError('MANIFEST_CORRUPT', message, { backup: lastPart(name) }, { cause })
  }
}

interface Step extends Pick<Recovered, 'kind' | 'name'> {
  make: () => Promise<unknown>
}

/** Repositories come first: policies name them. */
function stepsOf({ services }: Context, installation: schedule.Installation): Step[] {
  const requestId = randomHex(8)
  return [
    ...installation.repositories.map(({ name, folder, maintenance }): Step => {
      const repositoryId = lastPart(name)
      const taken = {
        repositoryId,
        folder,
        adopt: true,
        requestId,
        passphraseFile: '',
        maintenance,
      }
      const deadline = { deadlineMs: limits.rebuildTimeoutMs }
      const make = () => services.catalog.createRepository(taken, deadline)
      return { kind: 'repository', name: repositoryId, make }
    }),
    ...installation.hosts.map((host): Step => {
      const hostId = lastPart(host.name)
      const make = () => services.snapshot.createHost({ hostId, host, requestId })
      return { kind: 'host', name: hostId, make }
    }),
    ...installation.policies.map((policy): Step => {
      const policyId = lastPart(policy.name)
      const make = () => services.schedule.createPolicy({ policyId, policy, requestId })
      return { kind: 'policy', name: policyId, make }
    }),
  ]
}

const wouldBeMade = ({ kind, name }: Step): Recovered => ({
  ...{ kind, name },
  outcome: 'would be made',
  message: '',
})

/** One that fails keeps none of the others from being made. */
async function carryOutStep({ kind, name, make }: Step): Promise<Recovered> {
  try {
    await make()
    return { kind, name, outcome: 'made', message: '' }
  } catch (thrown) {
    const failure = asBackupError(thrown)
    if (!failure || failure.reason === 'SERVICE_UNREACHABLE') throw thrown
    if (failure.reason === 'ALREADY_EXISTS') {
      return { kind, name, outcome: 'there already', message: '' }
    }
    return { kind, name, outcome: 'failed', message: failure.message }
  }
}

const columns: Column<Recovered>[] = [
  { title: 'WHAT', cell: ({ kind }) => kind },
  { title: 'NAME', cell: ({ name }) => name, shrinkTo: 12 },
  { title: 'OUTCOME', cell: ({ outcome }) => outcome },
  { title: 'WHY', cell: ({ message }) => message, shrinkTo: 20 },
]
