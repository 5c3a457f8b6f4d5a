import { formatBytes } from '@blockferry/core'
import type { catalog } from '@blockferry/proto'
import type { Command } from 'commander'
import { limits } from '../config.ts'
import { printFields, printRows } from '../context.ts'
import { type ExitCode, exitCode } from '../exit_code.ts'
import { plainJson } from '../json.ts'
import { fullName, lastPart } from '../resource_name.ts'
import { safeText } from '../safe_text.ts'
import { listed } from '../services.ts'
import type { Column } from '../table.ts'
import { timeText } from '../time_text.ts'
import { carryOut, examples, type Outcome } from '../verb.ts'

export function addCatalogCommands(program: Command, outcome: Outcome): void {
  const noun = program.command('catalog').description('what the repositories hold')
  const rebuild = noun
    .command('rebuild')
    .description('read every manifest again and make the catalog say what they say')
    .argument('[repository]', 'only this one')
  examples(rebuild, 'blockferry catalog rebuild', 'blockferry catalog rebuild nightly')
  carryOut(rebuild, outcome, async (context, _, repository): Promise<ExitCode> => {
    const name = repository === undefined ? '' : fullName('repositories', repository)
    const deadline = { deadlineMs: limits.rebuildTimeoutMs }
    const answer = await context.services.catalog.rebuildCatalog({ name }, deadline)
    for (const { path, reason, message } of answer.damagedManifests) {
      context.terminal.err(`${safeText(`damaged: ${path}: ${reason}: ${message}`)}\n`)
    }
    printFields(context, plainJson(answer), [
      ['backups', String(answer.backupCount)],
      ['removed', String(answer.removedCount)],
      ['damaged manifests', String(answer.damagedManifests.length)],
    ])
    return answer.damagedManifests.length === 0 ? exitCode.ok : exitCode.failed
  })
  const vms = noun.command('vms').description('list VMs that have backups')
  examples(vms, 'blockferry catalog vms')
  carryOut(vms, outcome, async (context) => {
    const { items } = await listed(Infinity, limits.pageSize, async (pageSize, pageToken) => {
      const answer = await context.services.catalog.listProtectedVms({ pageSize, pageToken })
      return { items: answer.vms, nextPageToken: answer.nextPageToken }
    })
    printRows(context, items, columns, plainJson, 'No backups. `blockferry backup VM` makes one.')
  })
}

const columns: Column<catalog.ProtectedVm>[] = [
  { title: 'VM', cell: ({ vmDisplayName }) => vmDisplayName, shrinkTo: 12 },
  { title: 'BACKUPS', cell: ({ backupCount }) => String(backupCount), right: true },
  { title: 'LATEST', cell: ({ latestBackup }) => lastPart(latestBackup), dispensable: 1 },
  { title: 'TIME', cell: ({ latestPointTime }) => timeText(latestPointTime) },
  { title: 'SIZE', cell: ({ sizeBytes }) => formatBytes(sizeBytes), right: true },
  { title: 'STORED', cell: ({ storedBytes }) => formatBytes(storedBytes), right: true },
  {
    title: 'IDENTITY',
    cell: ({ vmIdentity }) => vmIdentity,
    shrinkTo: 10,
    cut: 'middle',
    dispensable: 2,
  },
]
