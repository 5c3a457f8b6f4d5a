// Which VMs there are now, over all hosts. A host that does not answer is told apart
// from one without VMs, and never holds up the others for longer than its limit.
import { within } from '@blockferry/core'
import { asBackupError, BackupError } from '@blockferry/errors'
import type { Vm } from '@blockferry/hypervisor'
import type { Drivers, HostDrivers } from './drivers.ts'
import type { Host, LocatedVm } from './host.ts'
import type { HostMemory } from './host_memory.ts'

export interface UnreachableHost {
  host: string
  reason: string
  message: string
}

export interface Inventory {
  vms: LocatedVm[]
  unreachable: UnreachableHost[]
}

export async function takeInventory(
  hosts: Host[],
  drivers: Drivers,
  memory: HostMemory,
  limitMs: number,
  signal: AbortSignal,
): Promise<Inventory> {
  const answers = await Promise.all(
    hosts.map((host) => askHost(drivers.of(host), memory, limitMs, signal)),
  )
  const found = answers.flatMap((answer) => ('vms' in answer ? answer.vms : []))
  return {
    vms: refuseDuplicates(leaveOutMoved(found)).sort(byName),
    unreachable: answers.filter((answer) => 'reason' in answer),
  }
}

async function askHost(
  drivers: HostDrivers,
  memory: HostMemory,
  limitMs: number,
  signal: AbortSignal,
): Promise<{ vms: LocatedVm[] } | UnreachableHost> {
  const { host } = drivers
  try {
    const vms = await within(limitMs, listHost(drivers, memory, signal), () =>
      silent(host, limitMs),
    )
    return { vms: vms.map((vm) => ({ host, vm })) }
  } catch (thrown) {
    signal.throwIfAborted()
    const failure = asBackupError(thrown)
    if (!failure) throw thrown
    return { host, reason: failure.reason, message: failure.message }
  }
}

async function listHost(
  drivers: HostDrivers,
  memory: HostMemory,
  signal: AbortSignal,
): Promise<Vm[]> {
  const lists = await Promise.all(
    drivers.present.map(async (driver) => ({ driver, vms: await driver.inventory(signal) })),
  )
  const present = lists.flatMap(({ vms }) => vms)
  drivers.places.clear()
  for (const { driver, vms } of lists) {
    for (const { identity } of vms) drivers.places.set(identity, driver)
  }
  if (!drivers.off) return present
  for (const vm of present) if (!vm.refused) await memory.seen(drivers.host, vm)
  return [...present, ...(await drivers.off.inventory(signal))]
}

/** A VM that runs on one host and was last seen running on another has moved. */
function leaveOutMoved(found: LocatedVm[]): LocatedVm[] {
  const present = new Set(found.filter(isPresent).map(({ vm }) => vm.identity))
  return found.filter((one) => isPresent(one) || !present.has(one.vm.identity))
}

const isPresent = ({ vm }: LocatedVm) => vm.config.driver === 'folder' || vm.state !== 'off'

/** Two QEMUs of one UUID on two hosts; on one host the driver says so itself. */
function refuseDuplicates(found: LocatedVm[]): LocatedVm[] {
  const hostsOf = new Map<string, Set<string>>()
  for (const { host, vm } of found) {
    if (vm.config.driver !== 'qemu') continue
    hostsOf.set(vm.identity, (hostsOf.get(vm.identity) ?? new Set()).add(host))
  }
  return found.map((one) => {
    const hosts = hostsOf.get(one.vm.identity)
    if (one.vm.config.driver !== 'qemu' || !hosts || hosts.size < 2 || one.vm.refused) return one
    const message = `VM ${one.vm.name}: ${[...hosts].join(' and ')} report the UUID ${one.vm.identity}; give one of them another -uuid, or list each monitor on one host only`
    return { ...one, vm: { ...one.vm, refused: { reason: 'VM_UUID_DUPLICATE', message } } }
  })
}

const byName = (a: LocatedVm, b: LocatedVm) =>
  compare(a.vm.name, b.vm.name) || compare(a.vm.identity, b.vm.identity) || compare(a.host, b.host)

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)

const silent = (host: string, limitMs: number) =>
  new BackupError('HOST_UNREACHABLE', `list VMs of ${host}: no answer in ${limitMs} ms`, {
    host,
    cause: 'no answer',
  })
