import { randomInt } from 'node:crypto'
import { sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import type { Connection, Pool, Session } from './pool.ts'

export type Isolation = 'serializable' | 'read committed'

export interface TransactionOptions {
  isolation?: Isolation
  /** Attempts in all when others change the same rows at the same time. */
  attemptsMax?: number
}

const attemptsMaxDefault = 10
const backoffMs = 5

/**
 * Runs `work` in one transaction: commits its result, rolls back what throws. Work that loses
 * against another transaction runs again from the start, so it must touch nothing but `session`.
 */
export async function transaction<T>(
  pool: Pool,
  work: (session: Session) => Promise<T>,
  options: TransactionOptions = {},
): Promise<T> {
  const attemptsMax = options.attemptsMax ?? attemptsMaxDefault
  for (let attempt = 1; ; attempt++) {
    try {
      return await attemptOnce(pool, work, options.isolation ?? 'serializable')
    } catch (thrown) {
      if (!isConflict(thrown) || attempt >= attemptsMax) throw thrown
      // Losers come back at different times, later with each attempt.
      await sleep(randomInt(1, backoffMs * 2 ** Math.min(attempt, 6)))
    }
  }
}

const isConflict = (thrown: unknown): boolean =>
  thrown instanceof BackupError && thrown.reason === 'DATABASE_BUSY' && thrown.cause !== undefined

async function attemptOnce<T>(
  pool: Pool,
  work: (session: Session) => Promise<T>,
  isolation: Isolation,
): Promise<T> {
  const connection = await pool.connect()
  let broken: Error | undefined
  try {
    await connection.query(`BEGIN ISOLATION LEVEL ${isolation}`)
    const result = await work(connection)
    await connection.query('COMMIT')
    return result
  } catch (thrown) {
    broken = await rollBack(connection)
    throw thrown
  } finally {
    connection.release(broken)
  }
}

// A connection that cannot even roll back is thrown away, and the server rolls back by itself.
async function rollBack(connection: Connection): Promise<Error | undefined> {
  try {
    await connection.query('ROLLBACK')
    return undefined
  } catch (thrown) {
    return thrown instanceof Error ? thrown : new Error(String(thrown))
  }
}
