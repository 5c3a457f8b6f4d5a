import { fileURLToPath } from 'node:url'
import { BackupError } from '@blockferry/errors'
import type { Vm } from '@blockferry/hypervisor'
import { migrate, type Pool } from '@blockferry/postgres'
import type { Host, Platform } from './host.ts'

const migrations = fileURLToPath(new URL('../migrations', import.meta.url))

export interface KnownVm {
  host: string
  vm: Vm
}

interface HostRow {
  name: string
  platform: Platform
  create_time: Date
}

/** Hosts and the VMs last seen on them. Errors of all: DATABASE_UNREACHABLE. */
export class Store {
  #pool: Pool
  #migrated: Promise<unknown> | null = null

  constructor(pool: Pool) {
    this.#pool = pool
  }

  /** The service starts without its database, so whoever comes first migrates. */
  async ready(): Promise<void> {
    this.#migrated ??= migrate(this.#pool, 'snapshot', migrations)
    try {
      await this.#migrated
    } catch (thrown) {
      this.#migrated = null
      throw thrown
    }
  }

  async hosts(): Promise<Host[]> {
    await this.ready()
    const { rows } = await this.#pool.query<HostRow>(
      'SELECT name, platform, create_time FROM snapshot.hosts ORDER BY name',
    )
    return rows.map(hostOf)
  }

  /** The host, also when the same request made it before. Errors: ALREADY_EXISTS. */
  async createHost(name: string, platform: Platform, requestId: string): Promise<Host> {
    await this.ready()
    const created = await this.#pool.query<HostRow>(
      `INSERT INTO snapshot.hosts (name, platform, request_id) VALUES ($1, $2, $3)
       ON CONFLICT (name) DO NOTHING RETURNING name, platform, create_time`,
      [name, JSON.stringify(platform), requestId],
    )
    if (created.rows[0]) return hostOf(created.rows[0])
    const { rows } = await this.#pool.query<HostRow>(
      `SELECT name, platform, create_time FROM snapshot.hosts
       WHERE name = $1 AND request_id = $2 AND request_id <> ''`,
      [name, requestId],
    )
    if (rows[0]) return hostOf(rows[0])
    throw alreadyExists(name)
  }

  /** False when there was none. */
  async deleteHost(name: string): Promise<boolean> {
    await this.ready()
    const { count } = await this.#pool.query('DELETE FROM snapshot.hosts WHERE name = $1', [name])
    return count > 0
  }

  async knownVms(): Promise<KnownVm[]> {
    await this.ready()
    const { rows } = await this.#pool.query<{ host: string; description: Vm }>(
      'SELECT host, description FROM snapshot.known_vms',
    )
    return rows.map(({ host, description }) => ({ host, vm: description }))
  }

  /** A VM is known on one host: where it ran last. */
  async remember(host: string, vm: Vm): Promise<void> {
    await this.ready()
    await this.#pool.query(
      `INSERT INTO snapshot.known_vms (host, identity, description)
       SELECT $1, $2, $3 WHERE EXISTS (SELECT FROM snapshot.hosts WHERE name = $1)
       ON CONFLICT (host, identity) DO UPDATE SET description = $3, seen_time = now()`,
      [host, vm.identity, JSON.stringify(vm)],
    )
    await this.#pool.query('DELETE FROM snapshot.known_vms WHERE identity = $2 AND host <> $1', [
      host,
      vm.identity,
    ])
  }
}

const hostOf = (row: HostRow): Host => ({
  name: row.name,
  platform: row.platform,
  createTimeMs: row.create_time.getTime(),
})

const alreadyExists = (name: string) =>
  new BackupError('ALREADY_EXISTS', `create ${name}: a host of that name exists; choose another`, {
    name,
  })
