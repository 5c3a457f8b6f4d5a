// Test doubles of the services: they answer what a test tells them over the real transport, and
// keep what they were asked. Only tests import this file.
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { newLog } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { backup, catalog, move, schedule, snapshot } from '@blockferry/proto'
import { type Handlers, type RunningService, serve } from '@blockferry/rpc'
import type { ServiceName } from './config.ts'
import { runProgram } from './program.ts'
import type { Terminal } from './terminal.ts'

export interface Asked {
  method: string
  request: unknown
}

/** What the doubles answer, by method; others are refused. */
export type Answers = Record<string, (request: never, signal: AbortSignal) => unknown>

export interface Doubles extends AsyncDisposable {
  asked: Asked[]
  stateFolder: string
  /** Runs one command line against them. */
  run(...args: string[]): Promise<Printed>
  /** The same on a terminal that the caller controls. */
  runOn(terminal: FakeTerminal, ...args: string[]): Promise<Printed>
}

export interface Printed {
  code: number
  out: string
  err: string
}

export interface FakeTerminal extends Terminal {
  outText: string
  errText: string
  /** Presses Ctrl-C. */
  interrupt(): void
}

export function fakeTerminal(columns = 80, errIsTerminal = false): FakeTerminal {
  const actions = new Set<(signal: string) => void>()
  const terminal: FakeTerminal = {
    columns,
    errIsTerminal,
    errColumns: columns,
    outText: '',
    errText: '',
    out: (text) => {
      terminal.outText += text
    },
    err: (text) => {
      terminal.errText += text
    },
    onInterrupt(action) {
      actions.add(action)
      return () => actions.delete(action)
    },
    interrupt() {
      for (const action of [...actions]) action('SIGINT')
    },
  }
  return terminal
}

export async function serveDoubles(answers: Answers): Promise<Doubles> {
  const stateFolder = mkdtempSync('/tmp/blockferry-cli-')
  const asked: Asked[] = []
  const running: RunningService[] = []
  const start = async <S>(
    name: ServiceName,
    definition: Record<string, { responseStream: boolean }>,
  ) => {
    running.push(
      await serve<S>({
        address: `unix:${join(stateFolder, 'run', `${name}.sock`)}`,
        name,
        definition: definition as never,
        handlers: handlersOf(definition, answers, asked) as Handlers<S>,
        log: newLog(name, 'silent'),
      }),
    )
  }
  await start<schedule.ScheduleServiceServer>('schedule', schedule.ScheduleServiceService)
  await start<snapshot.SnapshotServiceServer>('snapshot', snapshot.SnapshotServiceService)
  await start<move.MoveServiceServer>('move', move.MoveServiceService)
  await start<catalog.CatalogServiceServer>('catalog', catalog.CatalogServiceService)
  const runOn = async (terminal: FakeTerminal, ...args: string[]): Promise<Printed> => {
    const code = await runProgram(args, terminal, { BLOCKFERRY_STATE: stateFolder })
    return { code, out: terminal.outText, err: terminal.errText }
  }
  return {
    asked,
    stateFolder,
    run: (...args) => runOn(fakeTerminal(), ...args),
    runOn,
    async [Symbol.asyncDispose]() {
      for (const service of running) await service[Symbol.asyncDispose]()
      rmSync(stateFolder, { recursive: true })
    },
  }
}

function handlersOf(
  definition: Record<string, { responseStream: boolean }>,
  answers: Answers,
  asked: Asked[],
): Record<string, unknown> {
  const answer = (method: string, request: unknown, signal: AbortSignal) => {
    asked.push({ method, request })
    const make = answers[method]
    if (!make) throw new BackupError('INTERNAL', `the test does not expect ${method}`)
    return make(request as never, signal)
  }
  const entries = Object.entries(definition).map(([method, { responseStream }]) => [
    method,
    responseStream
      ? async function* (request: unknown, { signal }: { signal: AbortSignal }) {
          yield* answer(method, request, signal) as AsyncIterable<unknown>
        }
      : async (request: unknown, { signal }: { signal: AbortSignal }) =>
          await answer(method, request, signal),
  ])
  return Object.fromEntries(entries)
}

/** A run with everything that a test does not name empty. */
export const aRun = (fields: Partial<schedule.Run> = {}): schedule.Run => ({
  ...schedule.Run.fromPartial({
    name: 'runs/20261123-071500-4f2a9c',
    kind: schedule.Run_Kind.BACKUP,
    state: schedule.Run_State.QUEUED,
    vmDisplayName: 'web-1',
    backup: 'repositories/nightly/backups/20261123-071500-4f2a9c',
  }),
  ...fields,
})

export const aBackup = (fields: Partial<backup.Backup> = {}): backup.Backup => ({
  ...backup.Backup.fromPartial({
    name: 'repositories/nightly/backups/20261123-071500-4f2a9c',
    vmDisplayName: 'web-1',
    vmIdentity: '6f1c2d3e-0000-4000-8000-000000000001',
  }),
  ...fields,
})

export const aDisk = (fields: Partial<move.DiskProgress> = {}): move.DiskProgress => ({
  ...move.DiskProgress.fromPartial({ disk: 'vda', sizeBytes: 1_000_000n }),
  ...fields,
})
