import { formatBytes } from '@blockferry/core'
import type { snapshot } from '@blockferry/proto'
import type { Command } from 'commander'
import { limits } from '../config.ts'
import { type Context, countOf, noteMore, printFields, printRows } from '../context.ts'
import { methodName, vmJson, vmStateName } from '../json.ts'
import { countArgument } from '../option_value.ts'
import { fullName, lastPart } from '../resource_name.ts'
import { uncoveredText } from '../run_report.ts'
import { safeText } from '../safe_text.ts'
import { listed } from '../services.ts'
import type { Column } from '../table.ts'
import { carryOut, examples, type Outcome } from '../verb.ts'

export function addVmCommands(program: Command, outcome: Outcome): void {
  const vm = program.command('vm').description('VMs that the hosts report')
  listVerb(vm.command('list'), outcome)
  listVerb(program.command('vms'), outcome).description('the same as vm list')
  const show = vm
    .command('show')
    .description('show a VM, its disks, and what a backup would leave out')
    .argument('<vm>', 'name, identity, or hosts/HOST/vms/VM')
  examples(show, 'blockferry vm show web-1')
  carryOut(show, outcome, async (context, _, name = '') => {
    const { vm: found } = await context.services.snapshot.getVm({ name })
    if (found) printVm(context, found)
  })
}

interface ListOptions {
  host?: string
  limit?: string
}

function listVerb(command: Command, outcome: Outcome): Command {
  command
    .description('list VMs with what can be backed up of them')
    .option('--host <host>', 'only those on this host')
    .option('--limit <count>', 'at most so many', countArgument)
  examples(command, 'blockferry vm list', 'blockferry vm list --host lab --output json')
  return carryOut<ListOptions>(command, outcome, listVms)
}

async function listVms(context: Context, options: ListOptions): Promise<void> {
  const count = countOf(options.limit)
  const parent = options.host === undefined ? '' : fullName('hosts', options.host)
  const unreachable: snapshot.UnreachableHost[] = []
  const { items, more } = await listed(count, limits.pageSize, async (pageSize, pageToken) => {
    const answer = await context.services.snapshot.listVms({ parent, pageSize, pageToken })
    if (pageToken === '') unreachable.push(...answer.unreachableHosts)
    return { items: answer.vms, nextPageToken: answer.nextPageToken }
  })
  for (const { host, reason, message } of unreachable) {
    context.terminal.err(
      `${safeText(`${lastPart(host)} does not answer: ${message} (${reason})`)}\n`,
    )
  }
  printRows(context, items, columns, vmJson, 'No VMs. `blockferry host add` says where they are.')
  noteMore(context, more, options.limit)
}

const sizeOf = (vm: snapshot.Vm): bigint =>
  vm.disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0n)

const columns: Column<snapshot.Vm>[] = [
  { title: 'NAME', cell: (vm) => vm.displayName, shrinkTo: 12 },
  { title: 'HOST', cell: (vm) => vm.name.split('/')[1] ?? '', shrinkTo: 8 },
  { title: 'STATE', cell: vmStateName },
  { title: 'DISKS', cell: (vm) => String(vm.disks.length), right: true },
  { title: 'SIZE', cell: (vm) => formatBytes(sizeOf(vm)), right: true },
  { title: 'METHOD', cell: (vm) => methodName(vm.method), dispensable: 2 },
  { title: 'IDENTITY', cell: (vm) => vm.identity, shrinkTo: 10, cut: 'middle', dispensable: 1 },
  { title: 'NOTE', cell: noteOf, shrinkTo: 12 },
]

function noteOf(vm: snapshot.Vm): string {
  if (vm.refusalReason !== '') return vm.refusalReason
  const count = vm.uncoveredDisks.length
  return count === 0 ? '' : `${count} ${count === 1 ? 'disk' : 'disks'} left out`
}

const printVm = (context: Context, vm: snapshot.Vm): void =>
  printFields(context, vmJson(vm), [
    ['name', vm.displayName],
    ['identity', vm.identity],
    ['resource', vm.name],
    ['state', vmStateName(vm)],
    ['method', methodName(vm.method)],
    ['disks', vm.disks.map(diskText)],
    ['left out', vm.uncoveredDisks.map(uncoveredText)],
    ['refused', vm.refusalReason && `${vm.refusalReason}: ${vm.refusalMessage}`],
  ])

const diskText = ({ disk, sizeBytes, format, location }: snapshot.Disk): string =>
  `${disk}: ${formatBytes(sizeBytes)} ${format} ${location}`
