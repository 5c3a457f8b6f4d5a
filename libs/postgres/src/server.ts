// One program of PostgreSQL that works in one folder: initdb for a moment, postgres for long.
//
// As root it runs as another account, which may not pass the folders above its own, for example
// root's home. So the folder is opened here and handed over as descriptor 3, and the program knows
// it as /proc/self/fd/3: that leads straight there.
import { type ChildProcess, spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { type Logger, within } from '@blockferry/core'
import type { Account, Programs } from './programs.ts'

/** A started program. */
export interface Server {
  process: ChildProcess
  ended: Promise<void>
  /** Resolves when it accepts connections. */
  ready: Promise<void>
  /** The newest lines of its standard error. */
  lines: string[]
}

/** Starts a program that works in `folder`; its command is made of the name it knows that by. */
export async function startServer(
  programs: Programs,
  account: Account | null,
  folder: string,
  commandFor: (folder: string) => string[],
  log?: Logger,
): Promise<Server> {
  const handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    const [program = '', ...parameters] = commandFor(account === null ? folder : '/proc/self/fd/3')
    const child = spawn(program, parameters, {
      cwd: '/',
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C', ...programs.env },
      stdio: ['ignore', 'ignore', 'pipe', handle.fd],
      ...(account === null ? {} : { uid: account.uid, gid: account.gid }),
    })
    return watch(child, log)
  } finally {
    await handle.close()
  }
}

const linesKept = 20

function watch(process: ChildProcess, log?: Logger): Server {
  const lines: string[] = []
  const ended = new Promise<void>((done) => {
    process.once('close', () => done())
    process.once('error', (error) => {
      lines.push(error.message)
      done()
    })
  })
  const ready = new Promise<void>((done) => {
    if (process.stderr === null) return
    createInterface({ input: process.stderr }).on('line', (line) => {
      lines.push(line)
      if (lines.length > linesKept) lines.shift()
      log?.debug({ line }, 'postgres')
      if (line.includes('ready to accept connections')) done()
    })
  })
  return { process, ended, ready, lines }
}

/**
 * Ends it and waits. SIGINT is the fast shutdown: clients are cut off, everything committed is
 * kept. SIGQUIT gives up the last checkpoint, which the next start makes good.
 */
export async function endServer(server: Server, stopTimeoutMs: number): Promise<void> {
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
