// A small site for tests: a real PostgreSQL, doubles of the other services, and as many schedule
// services as a test wants, with limits short enough to wait for.
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { monotonicMs, sleep } from '@blockferry/core'
import { launchPostgres, openPool, type Pool, type RunningPostgres } from '@blockferry/postgres'
import { schedule } from '@blockferry/proto'
import { connect, type RpcClient, type RunningService } from '@blockferry/rpc'
import { type ScheduleLimits, type ScheduleSettings, scheduleConfig } from './config.ts'
import { serveCatalog, serveMove, serveSnapshot, World } from './doubles.ts'
import { startSchedule } from './main.ts'
import { hasEnded } from './run_row.ts'

export const shortLimits: Partial<ScheduleLimits> = {
  tickMs: 50,
  maintenanceTickMs: 50,
  heartbeatMs: 100,
  leaseMs: 700,
  pointHoldMs: 100,
  retryPauseMs: 30,
  progressMs: 50,
  watchMs: 20,
  pointBusyMs: 500,
  snapshotSilentMs: 4_000,
  moverSilentMs: 4_000,
  recordMs: 500,
  watchQuietMs: 1_000,
  runsPerHostMax: 8,
  runsPerRepositoryMax: 8,
}

type Client = RpcClient<schedule.ScheduleServiceServer>
type Part = 'snapshot' | 'move' | 'catalog'

const servers = { snapshot: serveSnapshot, move: serveMove, catalog: serveCatalog }

export class Site {
  readonly folder: string
  readonly pool: Pool
  world = new World()
  private readonly postgres: RunningPostgres
  private readonly parts = new Map<Part, RunningService>()
  private readonly services = new Set<AsyncDisposable>()
  private count = 0

  private constructor(folder: string, postgres: RunningPostgres) {
    this.folder = folder
    this.postgres = postgres
    this.pool = openPool(postgres.url)
  }

  static async open(): Promise<Site> {
    const folder = await mkdtemp('/tmp/blockferry-schedule-')
    await chmod(folder, 0o755)
    return new Site(folder, await launchPostgres({ dataFolder: join(folder, 'db'), fsync: false }))
  }

  /** A fresh world with the VM `vm1`; the database forgets all runs. */
  async begin(): Promise<void> {
    this.count++
    this.world = new World()
    this.world.addVm('vm1')
    await mkdir(this.stateFolder, { recursive: true })
    for (const part of ['snapshot', 'move', 'catalog'] as const) await this.start(part)
  }

  async end(): Promise<void> {
    for (const service of [...this.services]) await service[Symbol.asyncDispose]()
    this.services.clear()
    for (const part of [...this.parts.keys()]) await this.stop(part)
    await this.forget()
  }

  /** Forgets all runs and VMs but `vm1`, with the services left running. */
  async forget(): Promise<void> {
    await this.pool.query('TRUNCATE schedule.runs, schedule.policies, schedule.incarnations')
    this.world.vms.clear()
    this.world.addVm('vm1')
    this.world.movingMs = 50
    this.world.committingMs = 0
  }

  async close(): Promise<void> {
    await this.pool.end()
    await this.postgres.stop()
    await rm(this.folder, { recursive: true, force: true })
  }

  async start(part: Part): Promise<void> {
    this.parts.set(part, await servers[part](this.world, this.addressOf(part)))
  }

  async stop(part: Part): Promise<void> {
    await this.parts.get(part)?.[Symbol.asyncDispose]()
    this.parts.delete(part)
  }

  /** Settings of the nth schedule service on this database. */
  settings(name = 'schedule', limits: Partial<ScheduleLimits> = {}): ScheduleSettings {
    return {
      stateFolder: this.stateFolder,
      databaseUrl: this.postgres.url,
      logLevel: 'silent',
      addresses: { schedule: this.addressOf(name) },
      limits: { ...shortLimits, ...limits },
    }
  }

  async schedule(
    name = 'schedule',
    limits: Partial<ScheduleLimits> = {},
  ): Promise<Client & AsyncDisposable> {
    const service = await startSchedule(scheduleConfig(this.settings(name, limits)))
    const client = this.client(name)
    const running = Object.assign(client, {
      [Symbol.asyncDispose]: async () => {
        this.services.delete(running)
        client[Symbol.dispose]()
        await service[Symbol.asyncDispose]()
      },
    })
    this.services.add(running)
    return running
  }

  client(name = 'schedule'): Client {
    return connect<schedule.ScheduleServiceServer>(
      'schedule',
      schedule.ScheduleServiceService,
      this.addressOf(name),
    )
  }

  private addressOf(name: string): string {
    return `unix:${this.stateFolder}/run/${name}.sock`
  }

  private get stateFolder(): string {
    return join(this.folder, `s${this.count}`)
  }
}

/** Resolves when `holds` does; a promise that never comes true fails by name. */
export async function eventually(
  what: string,
  holds: () => boolean | Promise<boolean>,
  ms = 15_000,
): Promise<void> {
  const beganMs = monotonicMs()
  while (!(await holds())) {
    if (monotonicMs() - beganMs > ms) throw new Error(`did not come true: ${what}`)
    await sleep(10)
  }
}

/** The run when it has ended. */
export async function ended(client: Client, run: schedule.Run | undefined): Promise<schedule.Run> {
  let last = run
  await eventually(`the end of ${run?.name}`, async () => {
    last = (await client.getRun({ name: run?.name ?? '' })).run
    return last !== undefined && hasEnded(last.state)
  })
  return last ?? schedule.Run.fromPartial({})
}
