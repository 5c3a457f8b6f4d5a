// The one place that reads the environment: options first, then variables, then defaults.
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { argumentInvalid } from '@blockferry/errors'
import { checkAddress } from '@blockferry/rpc'

export const serviceNames = ['schedule', 'snapshot', 'move', 'catalog'] as const
export type ServiceName = (typeof serviceNames)[number]

export type OutputFormat = 'table' | 'json'
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent'

export interface Settings {
  stateFolder: string
  /** Where each service listens, and where the others and the commands find it. */
  endpoints: Record<ServiceName, string>
  /** An external PostgreSQL; null: the one launched under the state folder. */
  databaseUrl: string | null
  output: OutputFormat
  /** Neither progress nor more than the name of what was made. */
  quiet: boolean
  logLevel: LogLevel
}

export const limits = {
  /** A rebuild reads every manifest; everything else has the 30 s of libs/rpc. */
  rebuildTimeoutMs: 3_600_000,
  /** How long a watch tries to reach a service that went away, for example to be restarted. */
  reconnectTimeoutMs: 60_000,
  reconnectIntervalMs: 500,
  /** Between two lines of progress where standard error is not a terminal. */
  plainProgressIntervalMs: 5_000,
  /** Over which the rate of a transfer is taken. */
  rateWindowMs: 10_000,
  pageSize: 500,
  listedCount: 100,
  /** Of one list of changed blocks: at most 16 bytes each on the wire, in a message of 8 MiB. */
  changedExtentsMax: 400_000,
  /** Everything has stopped by then, or the process leaves anyway. */
  stopTimeoutMs: 10_000,
  /** Of it, what the four services get; the rest is the database's. */
  servicesStopTimeoutMs: 7_000,
  /** How long a service waits for the database that another process launches. */
  databaseWaitMs: 30_000,
  databaseWaitIntervalMs: 200,
  doctorTimeoutMs: 3_000,
} as const

/** Options that every command takes. */
export interface GlobalOptions {
  state?: string
  output?: string
  quiet?: boolean
  endpointSchedule?: string
  endpointSnapshot?: string
  endpointMove?: string
  endpointCatalog?: string
  logLevel?: string
}

export type Environment = Record<string, string | undefined>

/** Errors: ARGUMENT_INVALID, ADDRESS_REFUSED. */
export function settingsOf(options: GlobalOptions, env: Environment): Settings {
  const stateFolder = resolve(options.state ?? (env.BLOCKFERRY_STATE || defaultStateFolder(env)))
  return {
    stateFolder,
    endpoints: {
      schedule: endpointOf('schedule', options.endpointSchedule, stateFolder, env),
      snapshot: endpointOf('snapshot', options.endpointSnapshot, stateFolder, env),
      move: endpointOf('move', options.endpointMove, stateFolder, env),
      catalog: endpointOf('catalog', options.endpointCatalog, stateFolder, env),
    },
    databaseUrl: env.DATABASE_URL || null,
    output: oneOf('--output', options.output ?? (env.BLOCKFERRY_OUTPUT || 'table'), outputFormats),
    quiet: options.quiet ?? false,
    logLevel: oneOf(
      '--log-level',
      options.logLevel ?? (env.BLOCKFERRY_LOG_LEVEL || 'info'),
      levels,
    ),
  }
}

export const outputFormats = ['table', 'json'] as const
const levels = ['debug', 'info', 'warn', 'error', 'silent'] as const

function oneOf<T extends string>(option: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((each) => each === value)
  if (found === undefined) throw argumentInvalid(option, value, `give ${allowed.join(' or ')}`)
  return found
}

function endpointOf(
  service: ServiceName,
  option: string | undefined,
  stateFolder: string,
  env: Environment,
): string {
  const variable = env[`BLOCKFERRY_ENDPOINT_${service.toUpperCase()}`]
  const address = option ?? (variable || `unix:${join(stateFolder, 'run', `${service}.sock`)}`)
  checkAddress(address)
  return address
}

function defaultStateFolder(env: Environment): string {
  if (process.getuid?.() === 0) return '/var/lib/blockferry'
  return join(env.XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'blockferry')
}

/** Columns of a table; without a terminal nothing is shortened unless COLUMNS says so. */
export function columnsOf(terminalColumns: number | undefined, env: Environment): number {
  const wanted = Number(env.COLUMNS)
  if (Number.isInteger(wanted) && wanted > 0) return wanted
  return terminalColumns ?? Number.POSITIVE_INFINITY
}

export const processEnvironment = (): Environment => process.env
