import { resolve } from 'node:path'
import { randomHex } from '@blockferry/core'
import type { snapshot } from '@blockferry/proto'
import type { Command } from 'commander'
import { limits } from '../config.ts'
import { printFields, printMade, printRows } from '../context.ts'
import { usageError } from '../failure.ts'
import { plainJson } from '../json.ts'
import { fullName, lastPart } from '../resource_name.ts'
import { listed } from '../services.ts'
import type { Column, Field } from '../table.ts'
import { timeText } from '../time_text.ts'
import { carryOut, collect, examples, type Outcome } from '../verb.ts'

interface AddOptions {
  qemu?: string
  monitor?: string[]
  fleece?: string
  folder?: string
}

export function addHostCommands(program: Command, outcome: Outcome): void {
  const host = program.command('host').description('where VMs run, and how they are reached')
  const add = host
    .command('add')
    .alias('create')
    .description('add a host: QEMU processes by their monitor sockets, or a folder of images')
    .argument('<name>', 'letters, digits, - _ and .')
    .option('--qemu <dir>', 'folder with one sub-folder per VM that holds qmp.sock')
    .option('--monitor <socket>', 'a QMP socket that lies elsewhere; repeatable', collect)
    .option('--fleece <dir>', 'where fleece stores are made while a snapshot exists')
    .option('--folder <dir>', 'folder with one sub-folder or YAML file per VM')
  examples(
    add,
    'blockferry host add lab --qemu /run/vms',
    'blockferry host add one --monitor /run/web-1.qmp',
    'blockferry host add templates --folder /srv/templates',
  )
  carryOut<AddOptions>(add, outcome, async (context, options, hostId = '') => {
    const added = { name: '', platform: platformOf(options) }
    const request = { hostId, host: added, requestId: randomHex(8) }
    const answer = await context.services.snapshot.createHost(request)
    const made = answer.host
    if (made) printMade(context, made.name, hostJson(made), fieldsOf(made))
  })
  const list = host.command('list').description('list hosts')
  examples(list, 'blockferry host list')
  carryOut(list, outcome, async (context) => {
    const { items } = await listed(Infinity, limits.pageSize, async (pageSize, pageToken) => {
      const answer = await context.services.snapshot.listHosts({ pageSize, pageToken })
      return { items: answer.hosts, nextPageToken: answer.nextPageToken }
    })
    printRows(context, items, columns, hostJson, 'No hosts. `blockferry host add` adds one.')
  })
  const show = host.command('show').description('show a host').argument('<name>')
  examples(show, 'blockferry host show lab')
  carryOut(show, outcome, async (context, _, name = '') => {
    const answer = await context.services.snapshot.getHost({ name: fullName('hosts', name) })
    if (answer.host) printFields(context, hostJson(answer.host), fieldsOf(answer.host))
  })
  const remove = host
    .command('remove')
    .alias('delete')
    .description('forget a host; its VMs and their backups stay as they are')
    .argument('<name>')
  examples(remove, 'blockferry host remove lab')
  carryOut(remove, outcome, async (context, _, name = '') => {
    await context.services.snapshot.deleteHost({ name: fullName('hosts', name) })
    printFields(context, { name: fullName('hosts', name) }, [['removed', lastPart(name)]])
  })
}

function platformOf(options: AddOptions): NonNullable<snapshot.Host['platform']> {
  const { qemu, monitor = [], fleece, folder } = options
  const isQemu = qemu !== undefined || monitor.length > 0
  if (isQemu === (folder !== undefined)) {
    throw usageError('add a host: give either --qemu DIR and --monitor SOCKET, or --folder DIR')
  }
  if (folder !== undefined) return { $case: 'folder', value: { folder: resolve(folder) } }
  return {
    $case: 'qemu',
    value: {
      monitorFolder: qemu === undefined ? '' : resolve(qemu),
      monitorSockets: monitor.map((socket) => resolve(socket)),
      fleeceFolder: fleece === undefined ? '' : resolve(fleece),
    },
  }
}

/** The platform's fields under its name, as the proto has them. */
function hostJson({ name, platform, createTime }: snapshot.Host): unknown {
  const of = (kind: string) => (platform?.$case === kind ? platform.value : undefined)
  return plainJson({ name, qemu: of('qemu'), folder: of('folder'), createTime })
}

export function reachedBy({ platform }: snapshot.Host): string {
  if (platform?.$case === 'folder') return platform.value.folder
  if (platform?.$case !== 'qemu') return ''
  const { monitorFolder, monitorSockets } = platform.value
  return [monitorFolder, ...monitorSockets].filter((path) => path !== '').join(' ')
}

const columns: Column<snapshot.Host>[] = [
  { title: 'HOST', cell: ({ name }) => lastPart(name), shrinkTo: 12 },
  { title: 'PLATFORM', cell: ({ platform }) => platform?.$case ?? '' },
  { title: 'REACHED BY', cell: reachedBy, shrinkTo: 16, cut: 'middle' },
  { title: 'ADDED', cell: ({ createTime }) => timeText(createTime), dispensable: 1 },
]

const fieldsOf = (host: snapshot.Host): Field[] => [
  ['host', lastPart(host.name)],
  ['platform', host.platform?.$case ?? ''],
  ['reached by', reachedBy(host)],
  ['fleece stores', host.platform?.$case === 'qemu' ? host.platform.value.fleeceFolder : ''],
  ['added', timeText(host.createTime)],
]
