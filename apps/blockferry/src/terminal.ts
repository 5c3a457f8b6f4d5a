import { columnsOf, type Environment } from './config.ts'

/** Where a command writes to and what the user may do meanwhile. */
export interface Terminal {
  out(text: string): void
  err(text: string): void
  /** Columns for tables; Infinity where nothing is to be shortened. */
  columns: number
  /** Whether a line on standard error can be written over. */
  errIsTerminal: boolean
  errColumns: number
  /** Calls `action` on Ctrl-C or SIGTERM instead of leaving, until the returned function is called. */
  onInterrupt(action: (signal: string) => void): () => void
}

const narrowest = 20

/** The terminal of this process. */
export function processTerminal(env: Environment): Terminal {
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    columns: Math.max(narrowest, columnsOf(process.stdout.columns, env)),
    errIsTerminal: process.stderr.isTTY === true && env.TERM !== 'dumb',
    get errColumns() {
      return Math.max(narrowest, process.stderr.columns ?? 80)
    },
    onInterrupt(action) {
      const listeners = (['SIGINT', 'SIGTERM'] as const).map((signal) => {
        const listener = () => action(signal)
        process.on(signal, listener)
        return () => process.off(signal, listener)
      })
      return () => {
        for (const remove of listeners) remove()
      }
    },
  }
}
