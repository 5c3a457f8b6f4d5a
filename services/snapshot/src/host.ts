import type { Vm } from '@blockferry/hypervisor'

export type Platform =
  | { qemu: { monitorFolder: string; monitorSockets: string[]; fleeceFolder: string } }
  | { folder: { folder: string } }

export interface Host {
  /** `hosts/{host}`. */
  name: string
  platform: Platform
  createTimeMs: number
}

/** Images that a caller names belong to no host; their VMs are under this name. */
export const imagesHost = 'hosts/-'

export interface LocatedVm {
  /** `hosts/{host}`. */
  host: string
  vm: Vm
}

export const vmName = (host: string, identity: string): string =>
  `${host}/vms/${encodeURIComponent(identity)}`
