// Everything in one process: PostgreSQL, then the services, those first that others call. It
// stops the other way round.
import { type Logger, monotonicMs, newLog, sleep, within } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { launchPostgres } from '@blockferry/postgres'
import { limits, type ServiceName, type Settings } from './config.ts'
import { startService } from './service.ts'
import {
  postgresFolder,
  prepareStateFolder,
  readDatabaseUrl,
  writeDatabaseUrl,
} from './state_folder.ts'

/** What runs until it is disposed of. */
export interface Running extends AsyncDisposable {
  /** Rejects when a part of it ended unasked; never resolves. */
  broken: Promise<never>
  databaseUrl: string
}

const startOrder: readonly ServiceName[] = ['move', 'catalog', 'snapshot', 'schedule']

/** Starts PostgreSQL, unless an external one is given, and the four services. */
export async function startAll(settings: Settings): Promise<Running> {
  prepareStateFolder(settings.stateFolder)
  const log = newLog('up', settings.logLevel)
  await using started = new AsyncDisposableStack()
  const database = started.use(await startDatabase(settings, log))
  for (const name of startOrder) {
    const service = await startService(name, settings, database.databaseUrl)
    started.defer(() => stopWithin(name, service, log))
  }
  const parts = started.move()
  return { ...database, [Symbol.asyncDispose]: () => parts.disposeAsync() }
}

/** One service that uses the database of DATABASE_URL or of this state folder. */
export async function startOne(name: ServiceName, settings: Settings): Promise<Running> {
  prepareStateFolder(settings.stateFolder)
  const log = newLog(name, settings.logLevel)
  const databaseUrl = name === 'move' ? '' : await findDatabase(settings)
  const service = await startService(name, settings, databaseUrl)
  return {
    databaseUrl,
    broken: new Promise<never>(() => {}),
    [Symbol.asyncDispose]: () => stopWithin(name, service, log),
  }
}

/** The external database, or one that is launched and told to the other processes. */
export async function startDatabase(settings: Settings, log: Logger): Promise<Running> {
  const { stateFolder, databaseUrl } = settings
  if (databaseUrl !== null) {
    const nothing = async () => {}
    return { databaseUrl, broken: new Promise(() => {}), [Symbol.asyncDispose]: nothing }
  }
  prepareStateFolder(stateFolder)
  const server = await launchPostgres({ dataFolder: postgresFolder(stateFolder), log })
  const withdraw = writeDatabaseUrl(stateFolder, server.url)
  let stopping = false
  const broken = server.ended.then(async () => {
    if (stopping) return await new Promise<never>(() => {})
    throw new BackupError(
      'DATABASE_UNREACHABLE',
      `run PostgreSQL on ${postgresFolder(stateFolder)}: it ended by itself; start again`,
      { folder: postgresFolder(stateFolder) },
    )
  })
  broken.catch(() => {})
  return {
    databaseUrl: server.url,
    broken,
    async [Symbol.asyncDispose]() {
      stopping = true
      withdraw()
      await server.stop()
    },
  }
}

/** The services may be started together with `service postgres`: they wait for it. */
async function findDatabase({ stateFolder, databaseUrl }: Settings): Promise<string> {
  if (databaseUrl !== null) return databaseUrl
  const beginMs = monotonicMs()
  for (;;) {
    const url = readDatabaseUrl(stateFolder)
    if (url !== null) return url
    if (monotonicMs() - beginMs > limits.databaseWaitMs) {
      throw new BackupError(
        'DATABASE_UNREACHABLE',
        `find the database of ${stateFolder}: none is launched there; start \`blockferry service postgres\` with the same --state, or give DATABASE_URL`,
        { folder: stateFolder },
      )
    }
    await sleep(limits.databaseWaitIntervalMs)
  }
}

/** A service that hangs may not keep the database from being stopped well. */
async function stopWithin(name: string, service: AsyncDisposable, log: Logger): Promise<void> {
  const late = () => new Error(`${name} did not stop within ${limits.servicesStopTimeoutMs} ms`)
  const stopped = Promise.resolve(service[Symbol.asyncDispose]())
  await within(limits.servicesStopTimeoutMs, stopped, late).catch((error) =>
    log.error({ err: error, service: name }, 'stop'),
  )
}
