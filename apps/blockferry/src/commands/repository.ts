import { resolve } from 'node:path'
import { formatBytes, randomHex } from '@blockferry/core'
import type { catalog } from '@blockferry/proto'
import type { Command } from 'commander'
import { limits } from '../config.ts'
import { type Context, printFields, printMade, printRows } from '../context.ts'
import { plainJson } from '../json.ts'
import { fullName, lastPart } from '../resource_name.ts'
import { listed } from '../services.ts'
import type { Column } from '../table.ts'
import { timeText } from '../time_text.ts'
import { carryOut, examples, type Outcome } from '../verb.ts'

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
  examples(create, 'blockferry repository create nightly /srv/backup')
  carryOut(create, outcome, async (context, _, name = '', folder = '') =>
    enter(context, name, folder, false),
  )
  const adopt = repository
    .command('adopt')
    .description('take in a repository that exists, with the backups it holds')
    .argument('<name>', 'the name it gets here')
    .argument('<folder>', "folder on the mover's machine")
  examples(adopt, 'blockferry repository adopt nightly /srv/backup')
  carryOut(adopt, outcome, async (context, _, name = '', folder = '') =>
    enter(context, name, folder, true),
  )
  const list = repository.command('list').description('list repositories')
  examples(list, 'blockferry repository list --output json')
  carryOut(list, outcome, async (context) => {
    const { items } = await listed(Infinity, limits.pageSize, async (pageSize, pageToken) => {
      const answer = await context.services.catalog.listRepositories({ pageSize, pageToken })
      return { items: answer.repositories, nextPageToken: answer.nextPageToken }
    })
    const empty = 'No repositories. `blockferry repository create` makes one.'
    printRows(context, items, columns, plainJson, empty)
  })
  const show = repository.command('show').description('show a repository').argument('<name>')
  examples(show, 'blockferry repository show nightly')
  carryOut(show, outcome, async (context, _, name = '') => {
    const request = { name: fullName('repositories', name) }
    const answer = await context.services.catalog.getRepository(request)
    if (answer.repository) print(context, answer.repository)
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

async function enter(
  context: Context,
  name: string,
  folder: string,
  adopt: boolean,
): Promise<void> {
  const request = {
    repositoryId: name,
    folder: resolve(folder),
    adopt,
    requestId: randomHex(8),
  }
  const deadline = { deadlineMs: limits.rebuildTimeoutMs }
  const answer = await context.services.catalog.createRepository(request, deadline)
  if (answer.repository) print(context, answer.repository)
}

const print = (context: Context, repository: catalog.Repository): void =>
  printMade(context, repository.name, plainJson(repository), [
    ['repository', lastPart(repository.name)],
    ['folder', repository.folder],
    ['id', repository.repositoryId],
    ['backups', String(repository.backupCount)],
    ['stored', formatBytes(repository.storedBytes)],
    ['since', timeText(repository.createTime)],
  ])

const columns: Column<catalog.Repository>[] = [
  { title: 'REPOSITORY', cell: ({ name }) => lastPart(name), shrinkTo: 12 },
  { title: 'BACKUPS', cell: ({ backupCount }) => String(backupCount), right: true },
  { title: 'FOLDER', cell: ({ folder }) => folder, shrinkTo: 16, cut: 'middle' },
  { title: 'SINCE', cell: ({ createTime }) => timeText(createTime), dispensable: 1 },
]
