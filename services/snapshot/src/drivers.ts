// The drivers of every host, opened when they are first needed and kept: they know
// which points they hold. A QEMU host has two kinds, for VMs that run and for VMs that are off.
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import {
  FolderDriver,
  type HypervisorDriver,
  QemuDriver,
  QemuOffDriver,
  type Vm,
} from '@blockferry/hypervisor'
import type { SnapshotConfig } from './config.ts'
import { type Host, imagesHost } from './host.ts'
import type { HostMemory } from './host_memory.ts'

export interface HostDrivers {
  host: string
  /** Drivers of VMs that run, or of a folder. */
  present: HypervisorDriver[]
  /** Driver of known VMs that are off, or null. */
  off: QemuOffDriver | null
  /** Which of them listed which identity last; known VMs that are not here are off. */
  places: Map<string, HypervisorDriver>
}

export class Drivers implements AsyncDisposable {
  readonly images: FolderDriver
  #config: SnapshotConfig
  #tag: string
  #memory: HostMemory
  #open = new Map<string, { platform: string; drivers: HostDrivers }>()

  constructor(config: SnapshotConfig, tag: string, memory: HostMemory) {
    this.#config = config
    this.#tag = tag
    this.#memory = memory
    const runFolder = this.#runFolder(imagesHost)
    this.images = new FolderDriver({ folder: null, runFolder, tag })
  }

  of(host: Host): HostDrivers {
    const platform = JSON.stringify(host.platform)
    const open = this.#open.get(host.name)
    if (open?.platform === platform) return open.drivers
    const drivers = this.#make(host)
    this.#open.set(host.name, { platform, drivers })
    return drivers
  }

  /** The driver that takes a point of a VM that was just found on `host`. */
  forVm(host: string, vm: Vm): HypervisorDriver {
    const drivers = this.#open.get(host)?.drivers
    const isOff = vm.config.driver === 'qemu' && vm.state === 'off'
    const driver = isOff ? drivers?.off : drivers?.places.get(vm.identity)
    if (!driver) throw new Error(`VM ${vm.identity} was found on ${host} without a driver`)
    return driver
  }

  /** Every driver that may hold a point, those of deleted hosts included. */
  all(): { host: string; driver: HypervisorDriver }[] {
    for (const host of this.#memory.hosts) this.of(host)
    const hosts = [...this.#open.values()].flatMap(({ drivers }) =>
      [...drivers.present, ...(drivers.off ? [drivers.off] : [])].map((driver) => ({
        host: drivers.host,
        driver: driver as HypervisorDriver,
      })),
    )
    return [...hosts, { host: imagesHost, driver: this.images }]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.all().map(({ driver }) => driver[Symbol.asyncDispose]()))
  }

  #make({ name, platform }: Host): HostDrivers {
    const tag = this.#tag
    const runFolder = this.#runFolder(name)
    const places = new Map<string, HypervisorDriver>()
    if ('folder' in platform) {
      const driver = new FolderDriver({ folder: platform.folder.folder, runFolder, tag })
      return { host: name, present: [driver], off: null, places }
    }
    const { monitorFolder, monitorSockets, fleeceFolder } = platform.qemu
    const fleeceRoot = fleeceFolder || this.#config.fleeceFolder
    const freeBytesMin = this.#config.limits.fleeceFreeBytesMin
    const live = (part: string, monitors: { folder: string } | { sockets: string[] }) =>
      new QemuDriver({
        tag,
        monitors,
        runFolder: `${runFolder}${part}`,
        // Two drivers must not take each other's stores for leftovers.
        fleece: { folder: join(fleeceRoot, `${keyOf(name)}${part}`), freeBytesMin },
      })
    return {
      host: name,
      present: [
        ...(monitorFolder ? [live('f', { folder: monitorFolder })] : []),
        ...(monitorSockets.length > 0 ? [live('s', { sockets: monitorSockets })] : []),
      ],
      off: new QemuOffDriver({ runFolder, tag, known: () => this.#offOn(name, places) }),
      places,
    }
  }

  #offOn(host: string, places: Map<string, HypervisorDriver>) {
    return this.#memory.knownOn(host).filter((vm) => !places.has(vm.identity))
  }

  #runFolder(host: string): string {
    return join(this.#config.runFolder, keyOf(host))
  }
}

/** Short, for the sake of socket paths, and without the characters of a name. */
const keyOf = (host: string) => createHash('sha256').update(host).digest('hex').slice(0, 6)
