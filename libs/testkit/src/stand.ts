// A whole installation for tests and the demo: a PostgreSQL, the four services as
// processes of their own, started as a user starts them, and gates between schedule
// and the services it drives. Everything lies in one folder and ends with it.
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { monotonicMs, sleep } from '@blockferry/core'
import { asBackupError } from '@blockferry/errors'
import { launchPostgres, type RunningPostgres } from '@blockferry/postgres'
import { catalog, move, schedule, snapshot } from '@blockferry/proto'
import { connect, type RpcClient, type RunningService } from '@blockferry/rpc'
import { type GateHooks, openGate } from './gate.ts'

export const serviceNames = ['catalog', 'move', 'snapshot', 'schedule'] as const
export type ServiceName = (typeof serviceNames)[number]

const command = fileURLToPath(new URL('../../../apps/blockferry/src/main.ts', import.meta.url))
const startMsMax = 30_000
const stopMsMax = 15_000

export interface StandOptions {
  /** Short path: it holds unix sockets. */
  folder: string
  /** Look at, hold or break calls that schedule makes. */
  hooks?: { snapshot?: GateHooks; move?: GateHooks }
}

export class Stand implements AsyncDisposable {
  readonly folder: string
  readonly schedule: RpcClient<schedule.ScheduleServiceServer>
  readonly snapshot: RpcClient<snapshot.SnapshotServiceServer>
  readonly move: RpcClient<move.MoveServiceServer>
  readonly catalog: RpcClient<catalog.CatalogServiceServer>
  #database: RunningPostgres
  #processes = new Map<ServiceName, ChildProcess>()
  #gates: RunningService[] = []

  private constructor(folder: string, database: RunningPostgres) {
    this.folder = folder
    this.#database = database
    this.schedule = connect('schedule', schedule.ScheduleServiceService, this.address('schedule'))
    this.snapshot = connect('snapshot', snapshot.SnapshotServiceService, this.address('snapshot'))
    this.move = connect('move', move.MoveServiceService, this.address('move'))
    this.catalog = connect('catalog', catalog.CatalogServiceService, this.address('catalog'))
  }

  static async start(options: StandOptions): Promise<Stand> {
    const { folder, hooks = {} } = options
    await mkdir(join(folder, 'run'), { recursive: true, mode: 0o755 })
    const database = await launchPostgres({ dataFolder: join(folder, 'postgres') })
    const stand = new Stand(folder, database)
    try {
      await stand.#openGates(hooks)
      await Promise.all(serviceNames.map((name) => stand.startService(name)))
    } catch (thrown) {
      await stand[Symbol.asyncDispose]()
      throw thrown
    }
    return stand
  }

  address(name: ServiceName): string {
    return `unix:${this.folder}/run/${name}.sock`
  }

  get databaseUrl(): string {
    return this.#database.url
  }

  processId(name: ServiceName): number {
    return this.#processes.get(name)?.pid ?? 0
  }

  /**
   * Starts a service as `blockferry service NAME` and waits until it answers. A launcher is a
   * program with its arguments that ends in exec, for example one that gives up rights.
   */
  async startService(name: ServiceName, launcher: string[] = []): Promise<void> {
    const log = openSync(join(this.folder, `${name}.log`), 'a')
    const endpoint = (other: 'snapshot' | 'move') => `unix:${this.folder}/run/${other}.gate`
    const peers =
      name === 'schedule'
        ? ['--endpoint-snapshot', endpoint('snapshot'), '--endpoint-move', endpoint('move')]
        : []
    const [program = '', ...args] = [
      ...[...launcher, process.execPath],
      ...['--disable-warning=ExperimentalWarning', '--conditions=@blockferry/source', command],
      ...['service', name, '--state', this.folder, ...peers],
    ]
    const child = spawn(program, args, {
      stdio: ['ignore', log, log],
      // A group of its own: Ctrl-C reaches the stand, which stops its services in order.
      detached: true,
      env: { ...process.env, DATABASE_URL: this.#database.url },
    })
    closeSync(log)
    this.#processes.set(name, child)
    const startMs = monotonicMs()
    while (!(await this.#answers(name))) {
      if (child.exitCode !== null || monotonicMs() - startMs > startMsMax) {
        throw new Error(`the ${name} service did not start:\n${await this.log(name)}`)
      }
      await sleep(50)
    }
  }

  /** Sends a signal to a service's process; SIGKILL waits until it is gone. */
  async signal(name: ServiceName, signal: NodeJS.Signals): Promise<void> {
    const child = this.#processes.get(name)
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill(signal)
    if (signal === 'SIGKILL') await gone
  }

  /** kill -9 and start again, as a supervisor does. */
  async restart(name: ServiceName): Promise<void> {
    await this.signal(name, 'SIGKILL')
    await this.startService(name)
  }

  async stopService(name: ServiceName): Promise<void> {
    const child = this.#processes.get(name)
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGCONT')
    child.kill('SIGTERM')
    await Promise.race([gone, sleep(stopMsMax)])
    child.kill('SIGKILL')
    await gone
  }

  async log(name: ServiceName): Promise<string> {
    return readFile(join(this.folder, `${name}.log`), 'utf8').catch(() => '')
  }

  /** Follows a run to its end, over restarts of schedule. */
  async runEnd(name: string, deadlineMs = 120_000): Promise<schedule.Run> {
    const startMs = monotonicMs()
    let last = 'never seen'
    while (monotonicMs() - startMs < deadlineMs) {
      try {
        const { run } = await this.schedule.getRun({ name }, { deadlineMs: 2_000 })
        if (run && isEnded(run)) return run
        last = JSON.stringify(run?.state)
      } catch (thrown) {
        const reason = asBackupError(thrown)?.reason
        if (reason !== 'SERVICE_UNREACHABLE' && reason !== 'DEADLINE_EXCEEDED') throw thrown
        last = String(thrown)
      }
      await sleep(50)
    }
    throw new Error(`${name} did not end within ${deadlineMs} ms; last: ${last}`)
  }

  /** Drops the database and starts an empty one; the services must be stopped. */
  async replaceDatabase(): Promise<void> {
    await this.#database.stop()
    await rm(join(this.folder, 'postgres'), { recursive: true })
    this.#database = await launchPostgres({ dataFolder: join(this.folder, 'postgres') })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of [...serviceNames].reverse()) await this.stopService(name)
    for (const gate of this.#gates) await gate[Symbol.asyncDispose]()
    for (const client of [this.schedule, this.snapshot, this.move, this.catalog]) {
      client[Symbol.dispose]()
    }
    await this.#database.stop()
  }

  async #openGates(hooks: NonNullable<StandOptions['hooks']>): Promise<void> {
    this.#gates = [
      await openGate<snapshot.SnapshotServiceServer>({
        address: `unix:${this.folder}/run/snapshot.gate`,
        target: this.address('snapshot'),
        service: 'snapshot',
        definition: snapshot.SnapshotServiceService,
        hooks: hooks.snapshot ?? {},
      }),
      await openGate<move.MoveServiceServer>({
        address: `unix:${this.folder}/run/move.gate`,
        target: this.address('move'),
        service: 'move',
        definition: move.MoveServiceService,
        hooks: hooks.move ?? {},
      }),
    ]
  }

  async #answers(name: ServiceName): Promise<boolean> {
    const page = { pageSize: 1, pageToken: '' }
    try {
      if (name === 'schedule') await this.schedule.listPolicies(page, { deadlineMs: 1_000 })
      if (name === 'snapshot') await this.snapshot.listHosts(page, { deadlineMs: 1_000 })
      if (name === 'catalog') await this.catalog.listRepositories(page, { deadlineMs: 1_000 })
      if (name === 'move') {
        const folder = join(this.folder, 'nothing')
        await this.move.inspectRepository({ folder }, { deadlineMs: 1_000 })
      }
      return true
    } catch (thrown) {
      const reason = asBackupError(thrown)?.reason
      return reason !== 'SERVICE_UNREACHABLE' && reason !== 'DEADLINE_EXCEEDED'
    }
  }
}

export function isEnded(run: schedule.Run): boolean {
  const { SUCCEEDED, FAILED, CANCELLED } = schedule.Run_State
  return run.state === SUCCEEDED || run.state === FAILED || run.state === CANCELLED
}
