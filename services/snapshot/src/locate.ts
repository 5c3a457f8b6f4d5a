// Where a VM is now. A query is a resource name, an identity, or a display name that
// only one VM has; an identity wins over a name.
import { BackupError, type Reason } from '@blockferry/errors'
import { type LocatedVm, vmName } from './host.ts'
import type { Inventory } from './inventory.ts'

/** Errors: VM_NOT_FOUND, VM_AMBIGUOUS; HOST_UNREACHABLE when it may be on a host that is silent. */
export function locate(query: string, { vms, unreachable }: Inventory): LocatedVm {
  const [byName, ...others] = vms.filter(({ host, vm }) => vmName(host, vm.identity) === query)
  if (byName && others.length === 0) return byName
  const byIdentity = vms.filter(({ vm }) => vm.identity === query)
  const found = byIdentity.length > 0 ? byIdentity : vms.filter(({ vm }) => vm.name === query)
  const [first, second] = found
  if (first && !second) return first
  if (first) throw ambiguous(query, found)
  const [silent] = unreachable
  if (silent) {
    throw new BackupError(
      silent.reason as Reason,
      `find VM ${JSON.stringify(query)}: it is on no host that answers, and ${silent.host} does not: ${silent.message}`,
      { vm: query, host: silent.host },
    )
  }
  throw new BackupError(
    'VM_NOT_FOUND',
    `find VM ${JSON.stringify(query)}: no host has a VM of that name or identity; list the VMs to see their names`,
    { vm: query },
  )
}

function ambiguous(query: string, found: LocatedVm[]): BackupError {
  const names = found.map(({ host, vm }) => vmName(host, vm.identity)).join(', ')
  return new BackupError(
    'VM_AMBIGUOUS',
    `find VM ${JSON.stringify(query)}: ${found.length} VMs have that name; use one of ${names}`,
    { vm: query, names },
  )
}
