// Migrations are numbered SQL files, `0001_policies.sql`, one folder and one schema per service.
// They run in the order of their numbers, all missing ones in one transaction, each once. The
// table `<schema>.migrations` keeps the digest of every file that ran: a file that was edited
// afterwards, or is gone, is refused, since two databases would then differ under one number.
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { BackupError } from '@blockferry/errors'
import { isCreatedMeanwhile } from './failure.ts'
import type { Pool, Session } from './pool.ts'
import { transaction } from './transaction.ts'

interface Migration {
  number: number
  name: string
  sha256: string
  sql: string
}

interface Applied {
  number: number
  name: string
  sha256: string
}

const lockTimeoutMs = 60_000

/**
 * Brings `schema` up to the newest file of `folder` and returns the names of those it ran. Any
 * number of processes may start at once: one migrates, the others wait and find nothing to do.
 */
export async function migrate(pool: Pool, schema: string, folder: string): Promise<string[]> {
  if (!/^[a-z][a-z0-9_]{0,30}$/.test(schema)) throw new Error(`schema name ${schema}`)
  const migrations = await readMigrations(folder)
  await createTable(pool, schema)
  return await transaction(pool, (session) => applyMissing(session, schema, migrations), {
    isolation: 'read committed',
  })
}

async function readMigrations(folder: string): Promise<Migration[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort()
  return await Promise.all(
    names.map(async (name, index) => {
      const number = Number(/^(\d{4})_[a-z0-9_]+\.sql$/.exec(name)?.[1])
      if (number !== index + 1) {
        throw new Error(`migration ${name} should be number ${index + 1} of ${folder}`)
      }
      const sql = await readFile(join(folder, name), 'utf8')
      return { number, name, sql, sha256: createHash('sha256').update(sql).digest('hex') }
    }),
  )
}

// IF NOT EXISTS looks first and creates then: the loser of a race gets an error, and finds the
// table there when it asks again.
async function createTable(pool: Pool, schema: string): Promise<void> {
  const create = () =>
    pool.query(`
      CREATE SCHEMA IF NOT EXISTS ${schema};
      CREATE TABLE IF NOT EXISTS ${schema}.migrations (
        number integer PRIMARY KEY,
        name text NOT NULL,
        sha256 text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
      )`)
  for (let attempt = 1; ; attempt++) {
    try {
      await create()
      return
    } catch (thrown) {
      if (!isCreatedMeanwhile(thrown) || attempt >= 10) throw thrown
    }
  }
}

async function applyMissing(
  session: Session,
  schema: string,
  migrations: Migration[],
): Promise<string[]> {
  await session.query(
    `SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = ${lockTimeoutMs};
     LOCK TABLE ${schema}.migrations IN SHARE ROW EXCLUSIVE MODE`,
  )
  const { rows } = await session.query<Applied>(
    `SELECT number, name, sha256 FROM ${schema}.migrations ORDER BY number`,
  )
  for (const applied of rows) checkUnchanged(schema, applied, migrations)
  const missing = migrations.slice(rows.length)
  for (const migration of missing) await apply(session, schema, migration)
  return missing.map(({ name }) => name)
}

function checkUnchanged(schema: string, applied: Applied, migrations: Migration[]): void {
  const metadata = { schema, migration: applied.name }
  const ours = migrations[applied.number - 1]
  if (ours === undefined) {
    throw new BackupError(
      'DATABASE_INCOMPATIBLE',
      `open schema ${schema}: its migration ${applied.name} is newer than this program; start the Blockferry version that made it, or a newer one`,
      metadata,
    )
  }
  if (ours.sha256 !== applied.sha256) {
    throw new BackupError(
      'DATABASE_INCOMPATIBLE',
      `open schema ${schema}: migration ${applied.name} ran with another text than ${ours.name} has now; released migrations are never edited, add a new one`,
      metadata,
    )
  }
}

async function apply(session: Session, schema: string, migration: Migration): Promise<void> {
  await session.query(`SET LOCAL search_path TO ${schema}`)
  try {
    await session.query(migration.sql)
  } catch (thrown) {
    if (thrown instanceof Error) thrown.message = `migration ${migration.name}: ${thrown.message}`
    throw thrown
  }
  await session.query(
    `INSERT INTO ${schema}.migrations (number, name, sha256) VALUES ($1, $2, $3)`,
    [migration.number, migration.name, migration.sha256],
  )
}
