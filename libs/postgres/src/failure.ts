import { BackupError } from '@blockferry/errors'

function codeOf(thrown: unknown): string {
  const { code } = (thrown ?? {}) as { code?: unknown }
  return typeof code === 'string' ? code : ''
}

const isSqlState = (code: string): boolean => /^[0-9A-Z]{5}$/.test(code) && /\d/.test(code)

// Errors of the operating system have names (ECONNREFUSED); the server's have five characters:
// class 08 is a broken connection, 57P0x a server that starts or stops, 53300 one that is full,
// 57014 and 25P03 a statement and a transaction that it ended because they took too long.
function isConnectionFailure(thrown: unknown): boolean {
  const code = codeOf(thrown)
  if (isSqlState(code)) return /^(08|57P0|53300|57014|25P03)/.test(code)
  if (code !== '') return /^E[A-Z]+$/.test(code)
  return (
    thrown instanceof Error &&
    /connection|timeout expired|timeout exceeded|read timeout/i.test(thrown.message)
  )
}

/** A transaction that lost against another one and may simply run again. */
export const isSerializationFailure = (thrown: unknown): boolean =>
  ['40001', '40P01'].includes(codeOf(thrown))

/** A row that breaks a unique constraint: `constraint` narrows it down to one of them. */
export const isUniqueViolation = (thrown: unknown, constraint?: string): boolean =>
  codeOf(thrown) === '23505' &&
  (constraint === undefined || (thrown as { constraint?: string }).constraint === constraint)

/** A schema or table that somebody else created between our look and our attempt. */
export const isCreatedMeanwhile = (thrown: unknown): boolean =>
  ['23505', '42P06', '42P07'].includes(codeOf(thrown))

/** What pg threw, as a failure with a reason where one fits; everything else stays as it is. */
export function databaseFailure(doing: string, thrown: unknown): unknown {
  if (!(thrown instanceof Error) || thrown instanceof BackupError) return thrown
  if (isConnectionFailure(thrown)) {
    return new BackupError(
      'DATABASE_UNREACHABLE',
      `${doing}: ${thrown.message}; check that PostgreSQL runs and that the database URL leads to it`,
      { doing },
      { cause: thrown },
    )
  }
  if (isSerializationFailure(thrown) || codeOf(thrown) === '55P03') {
    return new BackupError(
      'DATABASE_BUSY',
      `${doing}: ${thrown.message}; try again in a moment`,
      { doing },
      { cause: thrown },
    )
  }
  return thrown
}
