import pg from 'pg'
import { databaseFailure } from './failure.ts'

export interface Rows<Row> {
  rows: Row[]
  /** Rows returned or changed. */
  count: number
}

/** Where SQL can be sent: the pool, or one transaction of it. BIGINT columns come as bigint. */
export interface Session {
  query<Row extends object = Record<string, unknown>>(
    text: string,
    values?: readonly unknown[],
  ): Promise<Rows<Row>>
}

export interface Pool extends Session {
  /** A connection of its own; whoever takes it gives it back, with the error that broke it. */
  connect(): Promise<Connection>
  /** Closes every connection; waits for the work under way. */
  end(): Promise<void>
}

export interface Connection extends Session {
  release(broken?: Error): void
}

export interface PoolOptions {
  /** Shown in pg_stat_activity. */
  applicationName?: string
  connectionsMax?: number
  connectTimeoutMs?: number
  /** After which the server ends a statement. */
  statementTimeoutMs?: number
  /** After which an answer is waited for no longer: a server that is cut off ends nothing. */
  answerTimeoutMs?: number
  /** Told when an idle connection breaks; the pool replaces it by itself. */
  onBroken?: (error: Error) => void
}

// Longer than the server's own limit and than a migration waits for another one. Without it a query
// lasts until TCP gives up, a quarter of an hour.
const answerTimeoutMsDefault = 120_000

const bigintColumns: pg.CustomTypesConfig = {
  getTypeParser(id: number, format?: 'text' | 'binary') {
    if (id === pg.types.builtins.INT8 && format !== 'binary') return BigInt
    return format === 'binary'
      ? pg.types.getTypeParser(id, 'binary')
      : pg.types.getTypeParser(id, 'text')
  },
}

/**
 * Opens a pool on `postgresql://user@host/database`, or on a unix socket:
 * `postgresql://user@/database?host=/folder/of/the/socket`. Connects on first use.
 */
export function openPool(url: string, options: PoolOptions = {}): Pool {
  const pool = new pg.Pool({
    connectionString: url,
    application_name: options.applicationName ?? 'blockferry',
    max: options.connectionsMax ?? 8,
    connectionTimeoutMillis: options.connectTimeoutMs ?? 5_000,
    statement_timeout: options.statementTimeoutMs ?? 30_000,
    query_timeout: options.answerTimeoutMs ?? answerTimeoutMsDefault,
    types: bigintColumns,
  })
  // Without a listener a server that stops would take the process down through an idle connection.
  pool.on('error', (error) => options.onBroken?.(error))
  return {
    query: (text, values) => send(pool, text, values),
    connect: () => connect(pool),
    end: () => pool.end(),
  }
}

async function connect(pool: pg.Pool): Promise<Connection> {
  const client = await pool.connect().catch((thrown: unknown) => {
    throw databaseFailure('connect to the database', thrown)
  })
  // A connection that breaks between two queries says so here; the next query fails by itself.
  const ignore = () => {}
  client.on('error', ignore)
  return {
    query: (text, values) => send(client, text, values),
    release(broken) {
      client.off('error', ignore)
      client.release(broken)
    },
  }
}

async function send<Row extends object>(
  to: pg.Pool | pg.PoolClient,
  text: string,
  values: readonly unknown[] = [],
): Promise<Rows<Row>> {
  try {
    // Without values the text goes as a simple query, which may hold several statements.
    const result = await (values.length === 0
      ? to.query<Row>(text)
      : to.query<Row>(text, values as unknown[]))
    return { rows: result.rows, count: result.rowCount ?? 0 }
  } catch (thrown) {
    throw databaseFailure('query the database', thrown)
  }
}
