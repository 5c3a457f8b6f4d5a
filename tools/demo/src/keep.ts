// --keep: a process of its own holds the services and the machine, so that the command
// itself ends. It goes on until it gets SIGTERM, which stops everything in order.
import { type ChildProcess, fork } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Report } from './report.ts'

/** What the holder tells the command. */
export type KeepMessage =
  | { said: string }
  | { report: Report; whatNext: string }
  | { failed: string }

/** Starts the holder and passes on what it says until the demo has run; then it is on its own. */
export async function startKeeper(
  program: string,
  args: string[],
): Promise<{ report: Report; whatNext: string }> {
  const logPath = join(await mkdtemp(join(tmpdir(), 'bf-keep-')), 'demo.log')
  const log = openSync(logPath, 'a')
  const keeper = fork(program, args, { detached: true, stdio: ['ignore', log, log, 'ipc'] })
  closeSync(log)
  try {
    return await reportOf(keeper, logPath)
  } finally {
    if (keeper.connected) keeper.disconnect()
    keeper.unref()
  }
}

function reportOf(keeper: ChildProcess, logPath: string) {
  return new Promise<{ report: Report; whatNext: string }>((resolve, reject) => {
    keeper.on('message', (message: KeepMessage) => {
      if ('said' in message) console.error(message.said)
      else if ('failed' in message) reject(new Error(message.failed))
      else resolve(message)
    })
    keeper.once('exit', () => reject(new Error(`the demo ended early; ${logPath} says why`)))
  })
}
