// A PostgreSQL of our own: for trying Blockferry, for small sites and for tests. It listens on a
// unix socket only, so there is no port to collide with.
//
// It ends with this process, however this process ends: normally by stop(), and after kill -9
// because the kernel then sends it SIGINT (setpriv --pdeathsig). Where that did not happen, the
// next launch on the same data folder finds it by its postmaster.pid, stops it and starts anew.
import { createHash } from 'node:crypto'
import { lstat, mkdir, readdir, readFile, realpath, rename, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { type Logger, within } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { clearLeftover, markOwner } from './leftover.ts'
import { type Account, findPrograms, giveTo, launchAccount, type Programs } from './programs.ts'
import { endServer, type Server, startServer } from './server.ts'

export interface LaunchOptions {
  /** Created on the first launch; belongs to PostgreSQL alone. */
  dataFolder: string
  log?: Logger
  /** False only where nothing that matters is stored: tests that do not test crashes. */
  fsync?: boolean
  connectionsMax?: number
  startTimeoutMs?: number
}

export interface RunningPostgres extends AsyncDisposable {
  /** For openPool and for psql. */
  url: string
  processId: number
  /** Resolves when the server has ended, asked or not. */
  ended: Promise<void>
  /** Ends it and waits; may be called more than once. */
  stop(): Promise<void>
}

const startTimeoutMsDefault = 60_000
const stopTimeoutMs = 30_000
const socketPathSizeMax = 106
const user = 'blockferry'

/** Starts PostgreSQL on `dataFolder`, creating the database when there is none. */
export async function launchPostgres(options: LaunchOptions): Promise<RunningPostgres> {
  await mkdir(dirname(resolve(options.dataFolder)), { recursive: true })
  const place = await placeOf(options.dataFolder)
  const version = await dataVersion(place.dataFolder)
  await clearLeftover(place.dataFolder, stopTimeoutMs)
  await rm(place.runFolder, { recursive: true, force: true })
  try {
    return await launchAt(place, version, options)
  } catch (thrown) {
    await rm(place.runFolder, { recursive: true, force: true })
    throw thrown
  }
}

/** Where a database lives and as whom it runs. */
interface Place {
  account: Account | null
  dataFolder: string
  /** For what cannot be in the data folder; there only when it is needed. */
  runFolder: string
  socketFolder: string
}

// The path of a unix socket is at most 107 bytes: a data folder too deep for that gets its socket
// in /tmp, in a folder named by the digest of its path.
async function placeOf(folder: string): Promise<Place> {
  const dataFolder = join(await realpath(dirname(resolve(folder))), basename(resolve(folder)))
  const digest = createHash('sha256').update(dataFolder).digest('hex').slice(0, 16)
  const runFolder = `/tmp/blockferry-postgres-${digest}`
  const fits = Buffer.byteLength(join(dataFolder, '.s.PGSQL.5432')) <= socketPathSizeMax
  return {
    account: await launchAccount(),
    dataFolder,
    runFolder,
    socketFolder: fits ? dataFolder : runFolder,
  }
}

async function launchAt(
  place: Place,
  version: string | null,
  options: LaunchOptions,
): Promise<RunningPostgres> {
  const programs = await findPrograms(place.account, version, () => makeRunFolder(place))
  if (version === null) await createDatabase(programs, place, options.fsync !== false)
  if (place.socketFolder === place.runFolder) await makeRunFolder(place)
  const removeMark = await markOwner(place.dataFolder)
  const server = await startPostgres(programs, place, options)
  try {
    await waitUntilReady(server, place, options.startTimeoutMs ?? startTimeoutMsDefault)
  } catch (thrown) {
    await endServer(server, stopTimeoutMs)
    await removeMark()
    throw thrown
  }
  let stopping: Promise<void> | undefined
  const stop = () => {
    stopping ??= (async () => {
      await endServer(server, stopTimeoutMs)
      await removeMark()
      await rm(place.runFolder, { recursive: true, force: true })
    })()
    return stopping
  }
  return {
    url: `postgresql://${user}@/postgres?host=${encodeURIComponent(place.socketFolder)}`,
    processId: server.process.pid ?? 0,
    ended: server.ended,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

// Whoever made a folder under that name before us could watch or replace what is in it.
async function makeRunFolder({ account, runFolder }: Place): Promise<string> {
  await mkdir(runFolder, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  const found = await lstat(runFolder)
  if (!found.isDirectory() || ![process.getuid?.(), account?.uid].includes(found.uid)) {
    throw new BackupError(
      'DATABASE_UNREACHABLE',
      `launch PostgreSQL: ${runFolder} belongs to another account; remove it and try again`,
      { folder: runFolder },
    )
  }
  await giveTo(account, runFolder)
  return runFolder
}

// The version comes last into a data folder (see createDatabase): without it nothing is there yet.
async function dataVersion(dataFolder: string): Promise<string | null> {
  const entries = await readdir(dataFolder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [] as string[]
    throw error
  })
  if (entries.includes('PG_VERSION')) {
    return (await readFile(join(dataFolder, 'PG_VERSION'), 'utf8')).trim()
  }
  if (entries.length === 0) return null
  throw new BackupError(
    'DATABASE_INCOMPATIBLE',
    `launch PostgreSQL: ${dataFolder} is not empty and holds no database; choose an empty or a new folder`,
    { folder: dataFolder },
  )
}

// The database is made beside its place and then renamed: a launch that was killed in the middle
// leaves nothing that looks complete.
async function createDatabase(programs: Programs, place: Place, sync: boolean): Promise<void> {
  const draft = `${place.dataFolder}.new`
  await rm(draft, { recursive: true, force: true })
  await mkdir(draft)
  await giveTo(place.account, draft)
  const server = await startServer(programs, place.account, draft, (folder) => [
    join(programs.folder, 'initdb'),
    ...['-D', folder, '-U', user, '-A', 'trust', '-E', 'UTF8', '--locale=C'],
    ...(sync ? [] : ['--no-sync']),
  ])
  await server.ended
  if (server.process.exitCode !== 0) {
    throw launchFailure('create the database', server, place.dataFolder)
  }
  await rename(draft, place.dataFolder)
}

function startPostgres(programs: Programs, place: Place, options: LaunchOptions): Promise<Server> {
  const { account, dataFolder, socketFolder } = place
  const command = (folder: string) => {
    const settings = [
      'listen_addresses=',
      `unix_socket_directories=${socketFolder === dataFolder ? folder : socketFolder}`,
      'unix_socket_permissions=0700',
      `max_connections=${options.connectionsMax ?? 100}`,
      'logging_collector=off',
      'log_destination=stderr',
      ...(options.fsync === false ? ['fsync=off'] : []),
    ]
    return [
      ...['setpriv', '--pdeathsig', 'INT', join(programs.folder, 'postgres'), '-D', folder],
      ...settings.flatMap((setting) => ['-c', setting]),
    ]
  }
  return startServer(programs, account, dataFolder, command, options.log)
}

async function waitUntilReady(server: Server, place: Place, timeoutMs: number): Promise<void> {
  const doing = 'launch PostgreSQL'
  const early = server.ended.then(() => {
    throw launchFailure(doing, server, place.dataFolder)
  })
  await within(timeoutMs, Promise.race([server.ready, early]), () =>
    launchFailure(`${doing} within ${timeoutMs} ms`, server, place.dataFolder),
  )
}

function launchFailure(doing: string, server: Server, folder: string): BackupError {
  const said = server.lines.slice(-4).join('; ')
  return new BackupError(
    said.includes('postmaster.pid') ? 'DATABASE_BUSY' : 'DATABASE_UNREACHABLE',
    `${doing} in ${folder}: ${said || 'it says nothing'}; mend that or give DATABASE_URL`,
    { folder, said },
  )
}
