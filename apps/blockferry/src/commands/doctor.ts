import type { Command } from 'commander'
import { printRows } from '../context.ts'
import { type Check, diagnose } from '../diagnosis.ts'
import { exitCode } from '../exit_code.ts'
import type { Column } from '../table.ts'
import { carryOut, examples, type Outcome } from '../verb.ts'

export function addDoctorCommand(program: Command, outcome: Outcome): void {
  const doctor = program
    .command('doctor')
    .description('look for what is missing: programs, folders, services, hosts, repositories')
  examples(doctor, 'blockferry doctor', 'blockferry doctor --output json')
  carryOut(doctor, outcome, async (context) => {
    const checks = await diagnose(context)
    printRows(context, checks, columns, (check) => check, '')
    const bad = checks.filter(({ state }) => state === 'bad')
    if (context.settings.output === 'table') {
      for (const { what, advice } of bad) context.terminal.err(`${what}: ${advice}\n`)
    }
    if (bad.some(({ kind }) => kind === 'service')) return exitCode.unreachable
    return bad.length === 0 ? exitCode.ok : exitCode.failed
  })
}

const columns: Column<Check>[] = [
  { title: 'CHECK', cell: ({ what }) => what, shrinkTo: 20, cut: 'middle' },
  { title: 'STATE', cell: ({ state }) => state },
  { title: 'FOUND', cell: ({ found }) => found, shrinkTo: 20 },
]
