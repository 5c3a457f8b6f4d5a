import { createRequire } from 'node:module'
import type { Logger } from 'pino'

export type { Logger }

// Loaded with the first log: a command that is no service needs none.
const loadPino = (): typeof import('pino') => createRequire(import.meta.url)('pino')

/** Structured log of one service: one JSON object per line on standard error. */
export function newLog(service: string, level: string): Logger {
  const { destination, pino } = loadPino()
  const options = {
    name: 'blockferry',
    level,
    base: { service },
    serializers: { err: errorFields },
  }
  return pino(options, destination({ fd: 2, sync: true }))
}

/**
 * Only these: errors of libraries carry whole connections along, with the password of the
 * database among them.
 */
export function errorFields(thrown: unknown): Record<string, unknown> {
  if (!(thrown instanceof Error)) return { message: String(thrown) }
  const { name, message, stack, cause } = thrown
  const { code, reason, metadata } = thrown as Error & Record<string, unknown>
  const fields = { name, message, code, reason, metadata, stack }
  return cause === undefined ? fields : { ...fields, cause: errorFields(cause) }
}
