import type { Environment, Settings } from './config.ts'
import { limits } from './config.ts'
import { jsonLine } from './json.ts'
import type { Services } from './services.ts'
import { type Column, type Field, fieldLines, tableLines } from './table.ts'
import type { Terminal } from './terminal.ts'

/** What a command works with. */
export interface Context {
  settings: Settings
  services: Services
  terminal: Terminal
  env: Environment
}

/** One object or array of JSON, or a table; `empty` goes to standard error instead of a bare head. */
export function printRows<Row>(
  context: Context,
  rows: Row[],
  columns: Column<Row>[],
  json: (row: Row) => unknown,
  empty: string,
): void {
  const { terminal, settings } = context
  if (settings.output === 'json') {
    terminal.out(`${jsonLine(rows.map(json))}\n`)
  } else if (rows.length === 0) {
    terminal.err(`${empty}\n`)
  } else {
    terminal.out(`${tableLines(columns, rows, terminal.columns).join('\n')}\n`)
  }
}

/** One object of JSON, or lines for people. */
export function printOne(context: Context, json: unknown, lines: () => string[]): void {
  const { terminal, settings } = context
  const text = settings.output === 'json' ? [jsonLine(json)] : lines()
  if (text.length > 0) terminal.out(`${text.join('\n')}\n`)
}

export const printFields = (context: Context, json: unknown, fields: Field[]): void =>
  printOne(context, json, () => fieldLines(fields, context.terminal.columns))

/** The same for what a command made; only its name when asked to be quiet. */
export const printMade = (context: Context, name: string, json: unknown, fields: Field[]): void =>
  printOne(context, json, () =>
    context.settings.quiet ? [name] : fieldLines(fields, context.terminal.columns),
  )

/** Says on standard error that a listing was cut where nobody asked for it. */
export function noteMore(context: Context, more: boolean, limit: string | undefined): void {
  if (!more || limit !== undefined || context.settings.quiet) return
  context.terminal.err(`Only the first ${limits.listedCount} are shown; --limit shows more.\n`)
}

export function countOf(text: string | undefined): number {
  return text === undefined ? limits.listedCount : Number(text)
}
