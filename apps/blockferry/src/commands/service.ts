import { newLog, within } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import type { Command } from 'commander'
import { limits, type ServiceName, type Settings, serviceNames } from '../config.ts'
import type { Context } from '../context.ts'
import { type ExitCode, exitCode } from '../exit_code.ts'
import { jsonLine } from '../json.ts'
import type { Running } from '../up.ts'
import { carryOut, examples, type Outcome } from '../verb.ts'

const purposes: Record<ServiceName, string> = {
  schedule: 'policies and runs',
  snapshot: 'hosts, VMs and points in time',
  move: 'carries blocks between disks and repositories',
  catalog: 'which backups there are',
}

export function addServiceCommands(program: Command, outcome: Outcome): void {
  const up = program
    .command('up')
    .description('start the four services, and PostgreSQL unless DATABASE_URL is given')
  examples(up, 'blockferry up', 'blockferry up --state /srv/blockferry --log-level info')
  carryOut(up, outcome, (context) => {
    // Everything at once would bury the one line that says it is ready.
    const logLevel = context.settings.logLevel === 'info' ? 'warn' : context.settings.logLevel
    const start = async () => (await import('../up.ts')).startAll({ ...context.settings, logLevel })
    return runUntilStopped(context, start, readyText)
  })
  const service = program.command('service').description('start one service by itself')
  for (const name of serviceNames) {
    const command = service
      .command(name)
      .description(`start the ${name} service: ${purposes[name]}`)
      .option('--listen <address>', 'unix:/path or loopback, instead of its endpoint')
    examples(
      command,
      `blockferry service ${name} --state /srv/blockferry`,
      `DATABASE_URL=postgresql://db/blockferry blockferry service ${name}`,
    )
    carryOut<{ listen?: string }>(command, outcome, (context, { listen }) => {
      const settings = listening(context.settings, name, listen)
      const start = async () => (await import('../up.ts')).startOne(name, settings)
      return runUntilStopped(context, start, () => `Ready. ${name} on ${settings.endpoints[name]}`)
    })
  }
  const postgres = service
    .command('postgres')
    .description('launch PostgreSQL in the state folder for services started one by one')
  examples(postgres, 'blockferry service postgres --state /srv/blockferry')
  carryOut(postgres, outcome, (context) => {
    const { settings } = context
    const start = async () =>
      (await import('../up.ts')).startDatabase(
        { ...settings, databaseUrl: null },
        newLog('postgres', settings.logLevel),
      )
    return runUntilStopped(context, start, ({ databaseUrl }) => `Ready. ${databaseUrl}`)
  })
}

const listening = (settings: Settings, name: ServiceName, address?: string): Settings =>
  address === undefined
    ? settings
    : { ...settings, endpoints: { ...settings.endpoints, [name]: address } }

function readyText(_: Running, { stateFolder }: Settings): string {
  return `Ready. State in ${stateFolder}; try: blockferry host add lab --folder DIR`
}

/** Runs until Ctrl-C or SIGTERM, or until a part of it breaks. A second Ctrl-C does not wait. */
async function runUntilStopped(
  context: Context,
  start: () => Promise<Running>,
  ready: (running: Running, settings: Settings) => string,
): Promise<ExitCode> {
  const { terminal, settings } = context
  const asked = Promise.withResolvers<void>()
  const hurried = Promise.withResolvers<void>()
  let signalCount = 0
  const remove = terminal.onInterrupt(() => {
    signalCount++
    if (signalCount === 1) asked.resolve()
    else hurried.resolve()
  })
  try {
    const running = await start()
    if (signalCount === 0) {
      const text = ready(running, settings)
      terminal.out(
        `${settings.output === 'json' ? jsonLine({ ready: true, message: text }) : text}\n`,
      )
    }
    const failure = await Promise.race([asked.promise, running.broken]).catch((thrown) => thrown)
    const late = () =>
      new BackupError('DEADLINE_EXCEEDED', `stop: not done within ${limits.stopTimeoutMs} ms`)
    const stopped = Promise.resolve(running[Symbol.asyncDispose]())
    await within(limits.stopTimeoutMs, Promise.race([stopped, hurried.promise]), late)
    if (failure !== undefined) throw failure
    return exitCode.ok
  } finally {
    remove()
  }
}
