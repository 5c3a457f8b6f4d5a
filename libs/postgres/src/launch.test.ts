import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { monotonicMs, sleep } from '@blockferry/core'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { launchPostgres, openPool } from './index.ts'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp('/tmp/blockferry-launch-test-')
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

const alive = (processId: number): boolean => existsSync(`/proc/${processId}/stat`)

async function untilGone(processId: number): Promise<void> {
  const deadlineMs = monotonicMs() + 10_000
  while (alive(processId) && monotonicMs() < deadlineMs) await sleep(20)
}

/** A process of its own that launches PostgreSQL, tells its number and waits to be killed. */
async function launchElsewhere(dataFolder: string): Promise<[ChildProcess, number]> {
  const index = fileURLToPath(new URL('./index.ts', import.meta.url))
  const program = `
    import { launchPostgres } from ${JSON.stringify(index)}
    const server = await launchPostgres({ dataFolder: ${JSON.stringify(dataFolder)} })
    console.log(String(server.processId))
    setInterval(() => {}, 1000)`
  const launcher = spawn(
    process.execPath,
    ['--conditions=@blockferry/source', '--input-type=module', '--eval', program],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const [line] = await once(launcher.stdout, 'data')
  return [launcher, Number(String(line))]
}

describe('launchPostgres', () => {
  it('keeps what was committed over a stop and a new launch, and leaves no process', async () => {
    const dataFolder = join(folder, 'data')
    const first = await launchPostgres({ dataFolder })
    const pool = openPool(first.url)
    await pool.query('CREATE TABLE kept AS SELECT 42 AS n')
    await pool.end()
    await first.stop()
    expect(alive(first.processId)).toBe(false)
    expect(await readdir(dataFolder)).not.toContain('postmaster.pid')

    await using second = await launchPostgres({ dataFolder })
    const again = openPool(second.url)
    expect((await again.query('SELECT n FROM kept')).rows).toEqual([{ n: 42 }])
    await again.end()
  })

  it('ends with its launcher when that is killed, and launches again', async () => {
    const dataFolder = join(folder, 'data')
    const [launcher, processId] = await launchElsewhere(dataFolder)
    launcher.kill('SIGKILL')
    await once(launcher, 'exit')
    await untilGone(processId)
    expect(alive(processId)).toBe(false)
    await using server = await launchPostgres({ dataFolder })
    const pool = openPool(server.url)
    expect((await pool.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
    await pool.end()
  })

  it('stops a server that outlived its launcher, and launches again', async () => {
    const dataFolder = join(folder, 'data')
    const first = await launchPostgres({ dataFolder })
    await writeFile(join(dataFolder, 'blockferry.launcher'), '4194305 1\n')
    await using second = await launchPostgres({ dataFolder })
    await first.ended
    expect(alive(first.processId)).toBe(false)
    expect(alive(second.processId)).toBe(true)
  })

  it('refuses a folder whose launcher lives, and leaves that one alone', async () => {
    const dataFolder = join(folder, 'data')
    await using first = await launchPostgres({ dataFolder })
    await expect(launchPostgres({ dataFolder })).rejects.toMatchObject({ reason: 'DATABASE_BUSY' })
    const pool = openPool(first.url)
    expect((await pool.query('SELECT 1 AS one')).count).toBe(1)
    await pool.end()
  })

  it('starts over a postmaster.pid whose number now belongs to another program', async () => {
    const dataFolder = join(folder, 'data')
    await (await launchPostgres({ dataFolder })).stop()
    await writeFile(join(dataFolder, 'postmaster.pid'), `${process.pid}\n${dataFolder}\n`)
    await using server = await launchPostgres({ dataFolder })
    expect(alive(server.processId)).toBe(true)
  })

  it('makes the database anew when an earlier launch was killed while making it', async () => {
    const dataFolder = join(folder, 'data')
    await mkdir(`${dataFolder}.new`)
    await writeFile(join(`${dataFolder}.new`, 'PG_VERSION'), '15\n')
    await using server = await launchPostgres({ dataFolder, fsync: false })
    expect(alive(server.processId)).toBe(true)
    expect(existsSync(`${dataFolder}.new`)).toBe(false)
  })

  it('serves a data folder whose path is too long for a socket', async () => {
    const dataFolder = join(folder, 'long'.repeat(25))
    const server = await launchPostgres({ dataFolder, fsync: false })
    const pool = openPool(server.url)
    expect((await pool.query('SELECT 1 AS one')).count).toBe(1)
    await pool.end()
    await server.stop()
    expect(
      existsSync(new URL(server.url.replace('@/', '@x/')).searchParams.get('host') ?? ''),
    ).toBe(false)
  })

  it('names the version when the data folder is of a PostgreSQL that is not installed', async () => {
    const dataFolder = join(folder, 'data')
    await (await launchPostgres({ dataFolder, fsync: false })).stop()
    await writeFile(join(dataFolder, 'PG_VERSION'), '9\n')
    await expect(launchPostgres({ dataFolder })).rejects.toMatchObject({
      reason: 'DATABASE_INCOMPATIBLE',
      metadata: { data_version: '9' },
    })
    expect(await readFile(join(dataFolder, 'PG_VERSION'), 'utf8')).toBe('9\n')
  })

  it('refuses a folder with files of somebody else', async () => {
    await writeFile(join(folder, 'letter.txt'), 'dear')
    await expect(launchPostgres({ dataFolder: folder })).rejects.toThrow('holds no database')
    expect(await readFile(join(folder, 'letter.txt'), 'utf8')).toBe('dear')
  })
})
