// A PostgreSQL of our own: for trying Blockferry, for small sites and for tests. It listens on a
// unix socket only, so there is no port to collide with.
//
// It ends with this process, however this process ends: normally by stop(), and after kill -9
// because the kernel then sends it SIGINT (setpriv --pdeathsig). Where that did not happen, the
// next launch on the same data folder finds it by its postmaster.pid, stops it and starts anew.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { lstat, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { type Logger, within } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { clearLeftover, markOwner } from './leftover.ts'
import {
  type Account,
  canReach,
  findPrograms,
  giveTo,
  launchAccount,
  type Programs,
} from './programs.ts'

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
  const dataFolder = resolve(options.dataFolder)
  const account = await launchAccount()
  await mkdir(dirname(dataFolder), { recursive: true })
  await checkReach(account, dirname(dataFolder))
  const version = await dataVersion(dataFolder)
  await clearLeftover(dataFolder, stopTimeoutMs)
  const programs = await findPrograms(account, version, `${dataFolder}-programs`)
  if (version === null) await createDatabase(programs, account, dataFolder, options.fsync !== false)
  const socketFolder = await prepareSocketFolder(account, dataFolder)
  const removeMark = await markOwner(dataFolder)
  const server = startServer(programs, account, dataFolder, socketFolder, options)
  try {
    await waitUntilReady(server, dataFolder, options.startTimeoutMs ?? startTimeoutMsDefault)
  } catch (thrown) {
    await endServer(server)
    await removeMark()
    throw thrown
  }
  let stopping: Promise<void> | undefined
  const stop = () => {
    stopping ??= (async () => {
      await endServer(server)
      await removeMark()
      if (socketFolder !== dataFolder) await rm(socketFolder, { recursive: true, force: true })
    })()
    return stopping
  }
  return {
    url: `postgresql://${user}@/postgres?host=${encodeURIComponent(socketFolder)}`,
    processId: server.process.pid ?? 0,
    ended: server.ended,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

async function checkReach(account: Account | null, folder: string): Promise<void> {
  if (account === null || (await canReach(account, folder))) return
  throw new BackupError(
    'DATABASE_UNREACHABLE',
    `launch PostgreSQL: it runs as account ${account.name}, which may not enter ${folder}; choose a data folder that every account can reach, or chmod o+x the folders above it`,
    { account: account.name, folder },
  )
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
async function createDatabase(
  programs: Programs,
  account: Account | null,
  dataFolder: string,
  sync: boolean,
): Promise<void> {
  const draft = `${dataFolder}.new`
  await rm(draft, { recursive: true, force: true })
  await mkdir(draft)
  await giveTo(account, draft)
  const server = watch(
    spawn(
      join(programs.folder, 'initdb'),
      ['-D', draft, '-U', user, '-A', 'trust', '-E', 'UTF8', '--locale=C', ...(sync ? [] : ['-N'])],
      spawnOptions(programs, account),
    ),
  )
  await server.ended
  if (server.process.exitCode !== 0) {
    throw launchFailure(`create the database in ${dataFolder}`, server, dataFolder)
  }
  await rename(draft, dataFolder)
}

// The path of a unix socket is at most 107 bytes. A data folder too deep for that gets a folder
// in /tmp named by its digest; one that somebody else made under that name is refused.
async function prepareSocketFolder(account: Account | null, dataFolder: string): Promise<string> {
  if (Buffer.byteLength(join(dataFolder, '.s.PGSQL.5432')) <= socketPathSizeMax) return dataFolder
  const digest = createHash('sha256').update(dataFolder).digest('hex').slice(0, 16)
  const folder = `/tmp/blockferry-postgres-${digest}`
  await mkdir(folder, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  const { uid } = await lstat(folder)
  const ours = [process.getuid?.(), account?.uid]
  if (!(await lstat(folder)).isDirectory() || !ours.includes(uid)) {
    throw new BackupError(
      'DATABASE_UNREACHABLE',
      `launch PostgreSQL: ${folder} belongs to another account; remove it or choose a data folder with a shorter path`,
      { folder },
    )
  }
  await giveTo(account, folder)
  return folder
}

interface Server {
  process: ChildProcessWithoutNullStreams
  ended: Promise<void>
  ready: Promise<void>
  /** The newest lines of its standard error. */
  lines: string[]
}

function startServer(
  programs: Programs,
  account: Account | null,
  dataFolder: string,
  socketFolder: string,
  options: LaunchOptions,
): Server {
  const settings = [
    'listen_addresses=',
    `unix_socket_directories=${socketFolder}`,
    'unix_socket_permissions=0700',
    `max_connections=${options.connectionsMax ?? 100}`,
    'logging_collector=off',
    'log_destination=stderr',
    ...(options.fsync === false ? ['fsync=off'] : []),
  ]
  const command = [
    join(programs.folder, 'postgres'),
    ...['-D', dataFolder],
    ...settings.flatMap((setting) => ['-c', setting]),
  ]
  return watch(
    spawn('setpriv', ['--pdeathsig', 'INT', ...command], spawnOptions(programs, account)),
    options.log,
  )
}

const spawnOptions = (programs: Programs, account: Account | null) => ({
  cwd: '/',
  env: { PATH: '/usr/bin:/bin', LC_ALL: 'C', ...programs.env },
  ...(account === null ? {} : { uid: account.uid, gid: account.gid }),
})

const linesKept = 20

function watch(process: ChildProcessWithoutNullStreams, log?: Logger): Server {
  const lines: string[] = []
  process.stdin.end()
  process.stdout.resume()
  const ended = new Promise<void>((done) => {
    process.once('close', () => done())
    process.once('error', (error) => {
      lines.push(error.message)
      done()
    })
  })
  const ready = new Promise<void>((done) => {
    createInterface({ input: process.stderr }).on('line', (line) => {
      lines.push(line)
      if (lines.length > linesKept) lines.shift()
      log?.debug({ line }, 'postgres')
      if (line.includes('ready to accept connections')) done()
    })
  })
  return { process, ended, ready, lines }
}

async function waitUntilReady(
  server: Server,
  dataFolder: string,
  timeoutMs: number,
): Promise<void> {
  const doing = `launch PostgreSQL on ${dataFolder}`
  const early = server.ended.then(() => {
    throw launchFailure(doing, server, dataFolder)
  })
  await within(timeoutMs, Promise.race([server.ready, early]), () =>
    launchFailure(`${doing}: not ready within ${timeoutMs} ms`, server, dataFolder),
  )
}

function launchFailure(doing: string, server: Server, folder: string): BackupError {
  const said = server.lines.slice(-4).join('; ')
  return new BackupError(
    said.includes('postmaster.pid') ? 'DATABASE_BUSY' : 'DATABASE_UNREACHABLE',
    `${doing}: ${said || 'it ended without a word'}; mend that or give DATABASE_URL`,
    { folder, said },
  )
}

// SIGINT is the fast shutdown: clients are cut off, everything committed is kept. SIGQUIT gives up
// the last checkpoint, which the next start makes good.
async function endServer(server: Server): Promise<void> {
  const late = () => new Error('still running')
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
    if (server.process.exitCode !== null || server.process.signalCode !== null) break
    server.process.kill(signal)
    const stopped = await within(stopTimeoutMs, server.ended, late).then(
      () => true,
      () => false,
    )
    if (stopped) return
  }
  await server.ended
}
