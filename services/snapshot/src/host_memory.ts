// The hosts and known VMs as this process knows them: read from the database, repeated
// in a file of the state folder, so that points are found and released while the database is down.
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Logger, randomHex } from '@blockferry/core'
import type { Vm } from '@blockferry/hypervisor'
import type { Host } from './host.ts'
import type { KnownVm, Store } from './store.ts'

interface Remembered {
  hosts: Host[]
  known: KnownVm[]
}

export class HostMemory {
  #path: string
  #store: Store
  #log: Logger
  #remembered: Remembered = { hosts: [], known: [] }
  #written: Promise<void> = Promise.resolve()
  /** Whether the database was read since the start. */
  #complete = false

  constructor(stateFolder: string, store: Store, log: Logger) {
    this.#path = join(stateFolder, 'snapshot-hosts.json')
    this.#store = store
    this.#log = log
  }

  get hosts(): Host[] {
    return this.#remembered.hosts
  }

  knownOn(host: string): Vm[] {
    return this.#remembered.known.filter((one) => one.host === host).map((one) => one.vm)
  }

  /** What the file says, for the time until the database answers. */
  async loadFile(): Promise<void> {
    try {
      this.#remembered = JSON.parse(await readFile(this.#path, 'utf8')) as Remembered
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return
      this.#log.warn({ err: thrown, path: this.#path }, 'the list of hosts cannot be read')
    }
  }

  /** Reads the database. Errors: DATABASE_UNREACHABLE. */
  async refresh(): Promise<void> {
    const hosts = await this.#store.hosts()
    // Seen VMs are written through, so after the first time the memory is as new as the database.
    const known = this.#complete ? this.#remembered.known : await this.#store.knownVms()
    this.#complete = true
    await this.#keep({ hosts, known })
  }

  /** As refresh, but what is remembered serves while the database is down. */
  async refreshIfPossible(): Promise<void> {
    try {
      await this.refresh()
    } catch (thrown) {
      this.#log.warn({ err: thrown }, 'the database does not answer: remembered hosts are used')
    }
  }

  /** Notes a VM that was seen running. */
  async seen(host: string, vm: Vm): Promise<void> {
    const { hosts, known } = this.#remembered
    const before = known.find((one) => one.vm.identity === vm.identity)
    if (before?.host === host && JSON.stringify(before.vm) === JSON.stringify(vm)) return
    await this.#keep({ hosts, known: [...known.filter((one) => one !== before), { host, vm }] })
    try {
      await this.#store.remember(host, vm)
    } catch (thrown) {
      this.#complete = false
      this.#log.warn({ err: thrown, vm: vm.name }, 'a VM could not be noted in the database')
    }
  }

  async #write(): Promise<void> {
    const draft = `${this.#path}.${randomHex(4)}`
    await writeFile(draft, JSON.stringify(this.#remembered), { mode: 0o600 })
    await rename(draft, this.#path)
  }

  async #keep(remembered: Remembered): Promise<void> {
    const changed = JSON.stringify(remembered) !== JSON.stringify(this.#remembered)
    this.#remembered = remembered
    if (!changed) return
    // One after the other, so that the file ends with the newest.
    this.#written = this.#written.catch(() => {}).then(() => this.#write())
    await this.#written
  }
}
