import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Pool, RunningPostgres } from './index.ts'
import { isUniqueViolation, launchPostgres, migrate, openPool, transaction } from './index.ts'

let folder: string
let server: RunningPostgres
let pool: Pool

beforeAll(async () => {
  folder = await mkdtemp('/tmp/blockferry-postgres-test-')
  server = await launchPostgres({ dataFolder: join(folder, 'data'), fsync: false })
  pool = openPool(server.url)
})

afterAll(async () => {
  await pool?.end()
  await server?.stop()
  await rm(folder, { recursive: true, force: true })
})

async function migrations(name: string, files: Record<string, string>): Promise<string> {
  const path = join(folder, name)
  await mkdir(path, { recursive: true })
  for (const [file, sql] of Object.entries(files)) await writeFile(join(path, file), sql)
  return path
}

describe('openPool', () => {
  it('returns a BIGINT as the same bigint that was sent', async () => {
    const value = 9_007_199_254_740_993n
    const { rows } = await pool.query<{ value: bigint }>('SELECT $1::bigint AS value', [value])
    expect(rows).toEqual([{ value }])
  })

  it('counts the rows that a statement changed', async () => {
    await pool.query('CREATE TABLE counted (n integer)')
    const { count } = await pool.query(
      'INSERT INTO counted SELECT generate_series(1, $1::int)',
      [7],
    )
    expect(count).toBe(7)
  })

  it('names a unique violation by its constraint', async () => {
    await pool.query('CREATE TABLE single (n integer CONSTRAINT single_n UNIQUE)')
    await pool.query('INSERT INTO single VALUES (1)')
    const thrown = await pool.query('INSERT INTO single VALUES (1)').catch((error) => error)
    expect(isUniqueViolation(thrown, 'single_n')).toBe(true)
    expect(isUniqueViolation(thrown, 'another')).toBe(false)
  })

  it('says DATABASE_UNREACHABLE when nobody listens', async () => {
    const nobody = openPool(`postgresql://blockferry@/postgres?host=${folder}`)
    await expect(nobody.query('SELECT 1')).rejects.toMatchObject({ reason: 'DATABASE_UNREACHABLE' })
    await nobody.end()
  })

  it('ends a statement that runs too long', async () => {
    const hasty = openPool(server.url, { statementTimeoutMs: 50 })
    await expect(hasty.query('SELECT pg_sleep(5)')).rejects.toMatchObject({
      reason: 'DATABASE_UNREACHABLE',
      message: expect.stringContaining('statement timeout'),
    })
    await hasty.end()
  })
})

describe('a server that hangs', () => {
  it.each([
    ['a query', (on: Pool) => on.query('SELECT 1')],
    ['a transaction', (on: Pool) => transaction(on, (session) => session.query('SELECT 1'))],
  ])('is waited for by %s no longer than the limit', async (_, ask) => {
    const cutOff = openPool(server.url, { connectionsMax: 1, answerTimeoutMs: 300 })
    const { rows } = await cutOff.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
    const pid = rows[0]?.pid ?? 0
    process.kill(pid, 'SIGSTOP')
    try {
      await expect(ask(cutOff)).rejects.toMatchObject({ reason: 'DATABASE_UNREACHABLE' })
      expect((await cutOff.query('SELECT 1')).count).toBe(1)
    } finally {
      process.kill(pid, 'SIGCONT')
      await cutOff.end()
    }
  })
})

describe('transaction', () => {
  it('leaves nothing of work that throws', async () => {
    await pool.query('CREATE TABLE undone (n integer)')
    const work = transaction(pool, async (session) => {
      await session.query('INSERT INTO undone VALUES (1)')
      throw new Error('thought better of it')
    })
    await expect(work).rejects.toThrow('thought better of it')
    expect((await pool.query('SELECT n FROM undone')).count).toBe(0)
  })

  it('repeats work that loses against another transaction, so that no increment is lost', async () => {
    await pool.query('CREATE TABLE counter (n integer); INSERT INTO counter VALUES (0)')
    let attempts = 0
    const allHaveRead = Promise.withResolvers<void>()
    const increment = () =>
      transaction(pool, async (session) => {
        const { rows } = await session.query<{ n: number }>('SELECT n FROM counter')
        if (++attempts === 3) allHaveRead.resolve()
        await allHaveRead.promise
        await session.query('UPDATE counter SET n = $1', [(rows[0]?.n ?? 0) + 1])
      })
    await Promise.all([increment(), increment(), increment()])
    expect((await pool.query<{ n: number }>('SELECT n FROM counter')).rows).toEqual([{ n: 3 }])
    expect(attempts).toBeGreaterThanOrEqual(5)
  })

  it('gives up with DATABASE_BUSY after the last attempt', async () => {
    let attempts = 0
    const work = transaction(
      pool,
      async (session) => {
        attempts++
        await session.query(`DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$`)
      },
      { attemptsMax: 3 },
    )
    await expect(work).rejects.toMatchObject({ reason: 'DATABASE_BUSY' })
    expect(attempts).toBe(3)
  })
})

describe('migrate', () => {
  it('runs each file once and in order', async () => {
    const path = await migrations('twice', {
      '0001_things.sql': 'CREATE TABLE things (id bigint PRIMARY KEY);',
      '0002_names.sql': 'ALTER TABLE things ADD COLUMN name text;',
    })
    expect(await migrate(pool, 'twice', path)).toEqual(['0001_things.sql', '0002_names.sql'])
    expect(await migrate(pool, 'twice', path)).toEqual([])
    await pool.query("INSERT INTO twice.things VALUES (1, 'one')")
  })

  it('runs each file once when many processes start together', async () => {
    const path = await migrations('together', {
      '0001_things.sql': 'CREATE TABLE things (n integer); INSERT INTO things VALUES (1);',
    })
    const pools = Array.from({ length: 6 }, () => openPool(server.url, { connectionsMax: 1 }))
    const ran = await Promise.all(pools.map((each) => migrate(each, 'together', path)))
    await Promise.all(pools.map((each) => each.end()))
    expect(ran.flat()).toEqual(['0001_things.sql'])
    expect((await pool.query('SELECT n FROM together.things')).count).toBe(1)
  })

  it('refuses a file that was edited after it ran', async () => {
    const path = await migrations('edited', { '0001_things.sql': 'CREATE TABLE things ();' })
    await migrate(pool, 'edited', path)
    await writeFile(join(path, '0001_things.sql'), 'CREATE TABLE things (); -- better')
    await expect(migrate(pool, 'edited', path)).rejects.toMatchObject({
      reason: 'DATABASE_INCOMPATIBLE',
      metadata: { migration: '0001_things.sql' },
    })
  })

  it('refuses a database that is newer than the program', async () => {
    const path = await migrations('newer', {
      '0001_things.sql': 'CREATE TABLE things ();',
      '0002_more.sql': 'CREATE TABLE more ();',
    })
    await migrate(pool, 'newer', path)
    await rm(join(path, '0002_more.sql'))
    await expect(migrate(pool, 'newer', path)).rejects.toThrow('newer than this program')
  })

  it('leaves nothing of a file that fails, and names it', async () => {
    const path = await migrations('failing', {
      '0001_things.sql': 'CREATE TABLE things ();',
      '0002_wrong.sql': 'CREATE TABLE more (); SELECT nonsense;',
    })
    await expect(migrate(pool, 'failing', path)).rejects.toThrow('0002_wrong.sql')
    const { rows } = await pool.query("SELECT to_regclass('failing.things')::text AS found")
    expect(rows).toEqual([{ found: null }])
  })

  it('refuses a gap in the numbers', async () => {
    const path = await migrations('gap', { '0002_things.sql': 'SELECT 1;' })
    await expect(migrate(pool, 'gap', path)).rejects.toThrow('should be number 1')
  })
})
