import { destination, type Logger, pino } from 'pino'

export type { Logger }

/** Structured log of one service: one JSON object per line on standard error. */
export function newLog(service: string, level: string): Logger {
  return pino({ name: 'blockferry', level, base: { service } }, destination({ fd: 2, sync: true }))
}
