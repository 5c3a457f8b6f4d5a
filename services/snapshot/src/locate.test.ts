import type { BackupError } from '@blockferry/errors'
import { describe, expect, it } from 'vitest'
import { type LocatedVm, vmName } from './host.ts'
import { locate } from './locate.ts'

const located = (host: string, identity: string, name: string): LocatedVm => ({
  host,
  vm: {
    ...{ identity, name, state: 'off', disks: [], uncovered: [], refused: null },
    config: { driver: 'folder', commandLine: [], diskFiles: {} },
  },
})

const vms = [
  located('hosts/a', 'one', 'web'),
  located('hosts/a', 'two', 'db'),
  located('hosts/b', 'three', 'db'),
  located('hosts/b', 'web', 'named like another'),
  located('hosts/b', 'two', 'same id elsewhere'),
  located('hosts/b', 'a/b\n%', 'odd'),
]
const silent = { host: 'hosts/c', reason: 'HOST_DENIED', message: 'no permission' }

function reasonOf(query: string, unreachable = [] as (typeof silent)[]): string {
  try {
    locate(query, { vms, unreachable })
  } catch (thrown) {
    return (thrown as BackupError).reason
  }
  return expect.unreachable('it was found')
}

describe('locate', () => {
  it('finds a VM by resource name, identity and display name', () => {
    for (const query of ['hosts/a/vms/one', 'one']) {
      expect(locate(query, { vms, unreachable: [] }).vm.identity).toBe('one')
    }
    expect(locate('odd', { vms, unreachable: [silent] }).vm.identity).toBe('a/b\n%')
    const odd = vmName('hosts/b', 'a/b\n%')
    expect(odd).toBe('hosts/b/vms/a%2Fb%0A%25')
    expect(locate(odd, { vms, unreachable: [] }).vm.name).toBe('odd')
  })

  it('prefers an identity to a display name', () => {
    expect(locate('web', { vms, unreachable: [] }).vm.name).toBe('named like another')
  })

  it('refuses a name that several VMs have, and tells them apart by resource name', () => {
    expect(reasonOf('db')).toBe('VM_AMBIGUOUS')
    expect(reasonOf('two')).toBe('VM_AMBIGUOUS')
    expect(locate('hosts/b/vms/two', { vms, unreachable: [] }).host).toBe('hosts/b')
  })

  it('says VM_NOT_FOUND only when every host has answered', () => {
    expect(reasonOf('nobody')).toBe('VM_NOT_FOUND')
    expect(reasonOf('nobody', [silent])).toBe('HOST_DENIED')
  })
})
