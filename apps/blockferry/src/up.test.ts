// The real thing from end to end: the command, the four services, PostgreSQL and the native engine
// as processes of their own, on images of a folder.
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { hostname } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { monotonicMs } from '@blockferry/core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const program = fileURLToPath(new URL('../bin/blockferry', import.meta.url))
const blockSize = 65_536

let folder: string
let state: string
const started = new Set<ChildProcess>()

beforeAll(() => {
  folder = mkdtempSync('/tmp/blockferry-up-')
  state = join(folder, 'state')
  // PostgreSQL, which root runs as another account, passes through.
  chmodSync(folder, 0o711)
})
afterAll(async () => {
  // Whoever launched a PostgreSQL stops it, so that nothing writes here any more.
  await Promise.all([...started].map((each) => end(each, 'SIGTERM')))
  rmSync(folder, { recursive: true })
}, 30_000)

interface Printed {
  code: number
  out: string
  err: string
}

function blockferry(...args: string[]): Promise<Printed> {
  return new Promise((resolve) => {
    const env = { ...environment(), BLOCKFERRY_STATE: state }
    execFile(program, args, { env }, (error, out, err) =>
      resolve({ code: error ? Number(error.code ?? 1) : 0, out, err }),
    )
  })
}

const environment = () => ({ PATH: '/usr/local/bin:/usr/bin:/bin', TZ: 'UTC' })

/** The result of a command that must end well. */
async function json<T = Record<string, unknown>>(...args: string[]): Promise<T> {
  const { code, out, err } = await blockferry(...args, '--output', 'json', '--quiet')
  expect(err, args.join(' ')).toBe('')
  expect(code, args.join(' ')).toBe(0)
  return JSON.parse(out) as T
}

/** Starts a service and waits until it says that it is ready. */
async function launch(...args: string[]): Promise<ChildProcess> {
  const child = spawn(program, [...args, '--log-level', 'warn'], {
    env: { ...environment(), BLOCKFERRY_STATE: state },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  started.add(child)
  child.once('exit', () => started.delete(child))
  let said = ''
  await new Promise<void>((resolve, reject) => {
    child.stderr?.on('data', (text) => {
      said += text
    })
    child.stdout?.on('data', (text) => {
      if (String(text).includes('Ready.')) resolve()
    })
    child.once('exit', () => reject(new Error(`${args.join(' ')} ended: ${said}`)))
  })
  return child
}

/** Sends a signal and waits for the end; gives the exit code. */
async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
  child.kill(signal)
  return await ended
}

const digestOf = (path: string): string =>
  createHash('sha256').update(readFileSync(path)).digest('hex')

/** Processes whose command line names the state folder. */
function processesOf(path: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((id) => {
      try {
        return readFileSync(`/proc/${id}/cmdline`, 'utf8').replaceAll('\0', ' ')
      } catch {
        return ''
      }
    })
    .filter((line) => line.includes(path))
}

function largestFile(path: string): string {
  const files = readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
  return files.sort((a, b) => statSync(b).size - statSync(a).size)[0] ?? ''
}

function writeBlock(path: string, index: number, byte: number): void {
  const file = openSync(path, 'r+')
  writeSync(file, Buffer.alloc(blockSize, byte), 0, blockSize, index * blockSize)
  closeSync(file)
}

interface RunJson {
  backup: string
  state: string
  decisions: { decision: string }[]
  disks: { read_bytes: number; stored_bytes: number; target_path: string }[]
}

interface RetainJson {
  state: string
  removed_backups: string[]
}

interface CollectJson {
  state: string
  collect_report: {
    dry_run: boolean
    dropped_backups: string[]
    deleted: { pack_count: number; size_bytes: number }
  }
}

interface BackupJson {
  name: string
  vm_display_name: string
  tags: string[]
  disks: { size_bytes: number }[]
}

interface DecisionJson {
  backup: string
  verdict: string
  reasons: { kind: string }[]
}

describe('blockferry up', () => {
  const sizeBytes = 64 * blockSize + 512
  let image: string
  let up: ChildProcess
  const digests: string[] = []
  const backups: string[] = []

  beforeAll(async () => {
    image = join(folder, 'db.raw')
    writeFileSync(image, '')
    truncateSync(image, sizeBytes)
    for (const index of [0, 7, 8, 63]) writeBlock(image, index, index + 1)
    up = await launch('up')
  }, 60_000)

  it('backs up an image in full', async () => {
    await json('repository', 'create', 'nightly', join(folder, 'repository'))
    const run = await json<RunJson>('backup', image, '--vm', 'db')
    digests.push(digestOf(image))
    backups.push(run.backup)
    expect(run.state).toBe('succeeded')
    expect(run.disks).toHaveLength(1)
  }, 60_000)

  it('reads only the changed blocks that it is given', async () => {
    writeBlock(image, 8, 99)
    const list = join(folder, 'changed.json')
    const extents = [[8 * blockSize, blockSize]]
    writeFileSync(list, JSON.stringify({ grain: blockSize, size: sizeBytes, extents }))
    const options = ['--vm', 'db', '--changed-blocks', list, '--base', 'latest:db']
    const run = await json<RunJson>('backup', image, ...options)
    digests.push(digestOf(image))
    backups.push(run.backup)
    expect(run.decisions.map(({ decision }) => decision)).toContain('CHANGED_BLOCKS_SUPPLIED')
    expect(run.disks[0]?.read_bytes).toBe(blockSize)
  }, 60_000)

  it('restores each backup byte for byte', async () => {
    for (const [index, backup] of backups.entries()) {
      const target = join(folder, `restored-${index}`)
      const run = await json<RunJson>('restore', backup, '--to', target, '--format', 'raw')
      const [disk] = run.disks
      expect(digestOf(disk?.target_path ?? '')).toBe(digests[index])
    }
    expect(digests[0]).not.toBe(digests[1])
  }, 60_000)

  it('verifies a backup, and tells when a byte of a pack was flipped', async () => {
    expect((await json<RunJson>('verify', 'latest:db')).state).toBe('succeeded')
    const pack = largestFile(join(folder, 'repository', 'packs'))
    const bytes = readFileSync(pack)
    const at = Math.floor(bytes.length / 2)
    chmodSync(pack, 0o600)
    writeFileSync(pack, bytes.with(at, (bytes[at] ?? 0) ^ 1))
    const { code, err } = await blockferry('verify', backups[0] ?? '', '--quiet')
    const stored = await blockferry('repository', 'verify', 'nightly', '--quiet')
    const all = await blockferry('repository', 'verify', 'nightly', '--level', 'blocks')
    const { out: listed } = await blockferry('backups', 'db')
    writeFileSync(pack, bytes)
    expect([stored.code, stored.err]).toEqual([1, expect.stringContaining('REPOSITORY_DAMAGED')])
    expect(stored.err).toContain(basename(pack))
    expect(all.code).toBe(1)
    expect(all.err).toMatch(/damaged: \S+ \(db\) db.raw, \d+ bytes from \d+/)
    expect(listed).toContain('DAMAGED')
    expect((await json<RunJson>('repository', 'verify', 'nightly')).state).toBe('succeeded')
    expect(code).toBe(1)
    expect(err).toMatch(/reason: (BLOCK_CORRUPT|REPOSITORY_DAMAGED)/)
    expect((await json<RunJson>('verify', backups[0] ?? '')).state).toBe('succeeded')
    const blocks = await blockferry('repository', 'verify', 'nightly', '--level', 'blocks')
    expect(blocks.out).toContain('every block of 2 backups decodes')
    expect((await blockferry('backups', 'db')).out).not.toContain('DAMAGED')
  }, 60_000)

  it('rebuilds the catalog from the repository alone', async () => {
    const before = await json<BackupJson[]>('backups', 'db')
    await json('repository', 'forget', 'nightly')
    expect(await json<BackupJson[]>('backups')).toEqual([])
    await json('repository', 'adopt', 'nightly', join(folder, 'repository'))
    const rebuilt = await json<{ backup_count: number }>('catalog', 'rebuild')
    expect(rebuilt.backup_count).toBe(2)
    // What was proven when is known to the catalog alone.
    const unproven = before.map((each) => ({ ...each, verify_time: null }))
    expect(await json<BackupJson[]>('backups', 'db')).toEqual(unproven)
    expect(before.map(({ name }) => name)).toEqual(backups.toReversed())
  }, 60_000)

  it('tells what does not exist from what cannot be used', async () => {
    const missing = await blockferry('backup', 'no-such-vm')
    expect([missing.code, missing.err]).toEqual([4, expect.stringContaining('VM_NOT_FOUND')])
    const occupied = await blockferry(
      'restore',
      'latest:db',
      '--to',
      join(folder, 'restored-0'),
      '--format',
      'raw',
    )
    expect([occupied.code, occupied.err]).toEqual([1, expect.stringContaining('TARGET_EXISTS')])
    const open = await blockferry('runs', '--endpoint-schedule', '0.0.0.0:1')
    expect([open.code, open.err]).toEqual([2, expect.stringContaining('ADDRESS_REFUSED')])
  }, 60_000)

  it('explains what a policy keeps, the same from the repository alone', async () => {
    mkdirSync(join(folder, 'images', 'web'), { recursive: true })
    writeFileSync(join(folder, 'images', 'web', 'disk.raw'), Buffer.alloc(blockSize, 7))
    const place = join(folder, 'kept')
    await json('repository', 'create', 'kept', place)
    await json('host', 'add', 'parked', '--folder', join(folder, 'images'))
    const rules = ['--keep-last', '1', '--keep-tag', 'gold']
    await json('policy', 'create', 'p', '--vm', 'web', '--to', 'kept', ...rules)
    await json('backup', 'web', '--to', 'kept')
    await json('policy', 'run', 'p')
    await json('policy', 'update', 'p', '--tag', 'gold')
    await json('policy', 'run', 'p')
    await json('policy', 'update', 'p', '--tag', 'silver')
    for (let count = 0; count < 2; count++) await json('policy', 'run', 'p')
    const explain = () => json<DecisionJson[]>('retention', 'explain', 'p')
    const before = await explain()
    expect(before.map(({ reasons }) => reasons.map(({ kind }) => kind))).toEqual([
      ['keep_newest', 'keep_newest_complete', 'keep_last'],
      ['remove_expired'],
      ['keep_tag'],
      ['remove_expired'],
      ['keep_other_policy'],
    ])
    await json('repository', 'forget', 'kept')
    await json('repository', 'adopt', 'kept', place)
    expect(await explain()).toEqual(before)

    const gone = before.flatMap(({ verdict, backup }) => (verdict === 'remove' ? [backup] : []))
    const [held = '', removed = ''] = gone
    const unconfirmed = await blockferry('retention', 'apply', 'p')
    expect([unconfirmed.code, unconfirmed.err]).toEqual([2, expect.stringContaining('--yes')])
    await json('backup', 'hold', held)
    const applied = await json<RetainJson>('retention', 'apply', 'p', '--yes')
    expect([applied.state, applied.removed_backups]).toEqual(['succeeded', [removed]])
    const names = (await json<BackupJson[]>('backups', 'web')).map(({ name }) => name)
    expect(names).toEqual(before.map(({ backup }) => backup).filter((name) => name !== removed))
    const again = await json<RetainJson>('retention', 'apply', 'p', '--yes')
    expect(again.removed_backups).toEqual([])
    await json('repository', 'forget', 'kept')
  }, 60_000)

  it.each(['v1'])(
    'takes in a repository of format %s from the day it was frozen',
    async (version) => {
      const frozen = fileURLToPath(new URL(`../../../tests/compat/${version}/`, import.meta.url))
      execFileSync('tar', ['-C', folder, '-xzf', join(frozen, 'product.tar.gz')])
      await json('repository', 'adopt', 'frozen', join(folder, 'product'))
      const listed = await json<BackupJson[]>('backups', '--repository', 'frozen')
      expect(listed.map((each) => [each.vm_display_name, each.tags])).toEqual([
        ['installation', []],
        ['web', ['gold']],
        ['web', ['gold']],
      ])
      const verified = await blockferry('repository', 'verify', 'frozen', '--level', 'blocks')
      expect(verified.code).toBe(0)
      const target = join(folder, 'restored-frozen')
      const restore = ['restore', listed[1]?.name ?? '', '--to', target, '--format', 'raw']
      const run = await json<RunJson>(...restore)
      const digest = '21f540da0250b3073181b973bf69a217d4c1de24c0252095bb69d3098f7c4a8e'
      expect(digestOf(run.disks[0]?.target_path ?? '')).toBe(digest)
      const dry = await blockferry(
        'recover',
        join(folder, 'product'),
        '--dry-run',
        '--output',
        'json',
      )
      const saved = JSON.parse(dry.out) as { name: string }[]
      expect(saved.map(({ name }) => name)).toEqual(['product', 'parked', 'p'])
      await json('repository', 'forget', 'frozen')
    },
    60_000,
  )

  it('locks the backups of a policy, and one of its own', async () => {
    const place = join(folder, 'locked')
    await json('repository', 'create', 'locked', place)
    const rules = ['--keep-last', '1', '--lock', '2h']
    await json('policy', 'create', 'l', '--vm', 'web', '--to', 'locked', ...rules)
    await json('policy', 'run', 'l')
    const own = await json<RunJson>('backup', 'web', '--to', 'locked', '--lock', '30d')
    await json('policy', 'run', 'l')
    for (const { name } of await json<BackupJson[]>('backups', 'web')) {
      const refused = await blockferry('backup', 'remove', name)
      expect([refused.code, refused.err]).toEqual([1, expect.stringContaining('BACKUP_LOCKED')])
    }
    await json('repository', 'clock', 'locked', '--confirm')
    const decisions = await json<DecisionJson[]>('retention', 'explain', 'l')
    expect(decisions.map(({ verdict }) => verdict)).toEqual(['keep', 'keep', 'keep'])
    expect(decisions[2]?.reasons).toMatchObject([{ kind: 'keep_locked' }])
    const { lock_until_time } = await json<{ lock_until_time: string }>(
      'backup',
      'show',
      own.backup,
    )
    const days = (Date.parse(lock_until_time) - Date.now()) / 86_400_000
    expect(days).toBeGreaterThan(29.9)
    expect(days).toBeLessThanOrEqual(30.01)
    await json('policy', 'delete', 'l')
    await json('repository', 'forget', 'locked')
  }, 60_000)

  it('refuses a second one on the same state folder', async () => {
    const { code, err } = await blockferry('up')
    expect(err).toContain('DATABASE_BUSY')
    expect(code).toBe(5)
  }, 60_000)

  it('starts again after it was killed', async () => {
    await end(up, 'SIGKILL')
    up = await launch('up')
    expect(await json<BackupJson[]>('backups')).toHaveLength(2)
  }, 60_000)

  it('removes a backup, has it back, and gives its space back', async () => {
    const [first = '', second = ''] = backups
    const names = async (...more: string[]) =>
      (await json<BackupJson[]>('backups', ...more)).map(({ name }) => name)
    await json('backup', 'hold', second)
    const refused = await blockferry('backup', 'remove', second)
    expect([refused.code, refused.err]).toEqual([1, expect.stringContaining('BACKUP_HELD')])
    await json('backup', 'release', second)
    await json('backup', 'remove', second)
    expect(await names()).toEqual([first])
    expect(await names('--removed')).toEqual([second, first])
    await json('catalog', 'rebuild')
    expect(await names()).toEqual([first])
    await json('backup', 'undelete', second)
    expect(await names()).toEqual([second, first])

    await json('backup', 'remove', second)
    const kept = await json<CollectJson>('repository', 'collect', 'nightly')
    expect(kept.collect_report).toMatchObject({ dropped_backups: [], dry_run: false })
    const dry = await blockferry('repository', 'collect', '--undo', '0', '--dry-run', '--quiet')
    expect([dry.code, dry.err]).toEqual([0, ''])
    const short = ['repository', 'collect', 'nightly', '--undo', '0']
    const unconfirmed = await blockferry(...short)
    expect([unconfirmed.code, unconfirmed.err]).toEqual([
      2,
      expect.stringContaining('--shorten-undo'),
    ])
    const done = await json<CollectJson>(...short, '--shorten-undo')
    expect(done.state).toBe('succeeded')
    expect(done.collect_report.dropped_backups).toEqual([second.split('/').at(-1)])
    expect(done.collect_report.deleted.pack_count).toBeGreaterThan(0)
    expect(await names('--removed')).toEqual([first])
    const gone = await blockferry('backup', 'undelete', second)
    expect([gone.code, gone.err]).toEqual([4, expect.stringContaining('BACKUP_NOT_FOUND')])
    expect((await json<RunJson>('verify', first)).state).toBe('succeeded')
    const target = join(folder, 'restored-after')
    const run = await json<RunJson>('restore', first, '--to', target, '--format', 'raw')
    expect(digestOf(run.disks[0]?.target_path ?? '')).toBe(digests[0])
  }, 60_000)

  it('stops within 10 s and leaves nothing', async () => {
    const beganMs = monotonicMs()
    expect(await end(up, 'SIGTERM')).toBe(0)
    expect(monotonicMs() - beganMs).toBeLessThan(10_000)
    expect(processesOf(state)).toEqual([])
    const left = readdirSync(join(state, 'run'), { recursive: true, withFileTypes: true })
    expect(left.filter((entry) => !entry.isDirectory())).toEqual([])
  }, 60_000)
})

describe('blockferry service', () => {
  it('shares one PostgreSQL among processes started one by one', async () => {
    state = join(folder, 'apart')
    const names = ['schedule', 'snapshot', 'catalog', 'move', 'postgres']
    const processes = await Promise.all(names.map((name) => launch('service', name)))
    await json('repository', 'create', 'nightly', join(folder, 'repository-apart'))
    const image = join(folder, 'other.raw')
    writeFileSync(image, Buffer.alloc(blockSize, 5))
    const run = await json<RunJson>('backup', image, '--vm', 'other')
    const target = join(folder, 'restored-other')
    const restored = await json<RunJson>('restore', run.backup, '--to', target, '--format', 'raw')
    expect(digestOf(restored.disks[0]?.target_path ?? '')).toBe(digestOf(image))
    const codes = await Promise.all(processes.map((each) => end(each, 'SIGINT')))
    expect(codes).toEqual([0, 0, 0, 0, 0])
    expect(processesOf(state)).toEqual([])
  }, 90_000)
})

describe('blockferry recover', () => {
  interface RecoveredJson {
    kind: string
    name: string
    outcome: string
  }
  const recovered = (rows: RecoveredJson[], outcome: string): string[] =>
    rows.filter((row) => row.outcome === outcome).map(({ kind, name }) => `${kind} ${name}`)

  it('has hosts, policies and repositories back on a machine that knows nothing', async () => {
    state = join(folder, 'lost')
    const images = join(folder, 'parked')
    const disk = join(images, 'web', 'disk.raw')
    mkdirSync(join(images, 'web'), { recursive: true })
    writeFileSync(disk, Buffer.alloc(64 * blockSize, 3))
    const secret = join(folder, 'secret')
    writeFileSync(secret, 'correct horse battery\n', { mode: 0o600 })
    const place = join(folder, 'safe')
    let up = await launch('up')
    await json('repository', 'create', 'plain', join(folder, 'plain'))
    const sealed = ['--passphrase-file', secret, '--collect-every', '7d']
    await json('repository', 'create', 'safe', place, ...sealed)
    await json('host', 'add', 'parked', '--folder', images)
    const rules = ['--every', '1d', '--keep-daily', '7', '--tag', 'gold']
    await json('policy', 'create', 'web', '--vm', 'web', '--to', 'safe', ...rules)
    await json('policy', 'create', 'other', '--vm', 'web', '--to', 'plain')
    await json('policy', 'run', 'web')
    const told = async () => ({
      hosts: await json<object[]>('host', 'list'),
      policies: await json<{ name: string }[]>('policy', 'list'),
      repositories: await json<object[]>('repository', 'list'),
    })
    const before = await told()
    const saved = await json<RunJson>('repository', 'save', 'safe')
    expect(saved.state).toBe('succeeded')
    expect((await json<RunJson>('verify', saved.backup)).state).toBe('succeeded')
    const folderOfNone = ['--to', join(folder, 'none'), '--format', 'raw']
    const none = await blockferry('restore', saved.backup, ...folderOfNone)
    expect([none.code, none.err]).toEqual([2, expect.stringContaining('blockferry recover')])
    await end(up, 'SIGTERM')

    // The machine is another one, the folder elsewhere, and the other repository is gone.
    state = join(folder, 'bare')
    const moved = join(folder, 'moved')
    renameSync(place, moved)
    rmSync(join(folder, 'plain'), { recursive: true })
    up = await launch('up')
    const locked = await blockferry('recover', moved)
    expect([locked.code, locked.err]).toEqual([1, expect.stringContaining('KEY_MISSING')])
    // Where the other one was there is a stranger now.
    await json('repository', 'create', 'stranger', join(folder, 'plain'))
    await json('repository', 'forget', 'stranger')
    const recover = ['recover', moved, '--passphrase-file', secret]
    const recoverAll = async (...more: string[]) => {
      const { code, out } = await blockferry(...recover, '--output', 'json', '--quiet', ...more)
      return { code, rows: JSON.parse(out) as RecoveredJson[] }
    }
    const all = ['repository safe', 'host parked', 'policy web']
    const dry = await recoverAll('--dry-run')
    expect([dry.code, recovered(dry.rows, 'would be made')]).toEqual([1, all])
    expect(await json('host', 'list')).toEqual([])
    const { code, rows } = await recoverAll()
    expect([code, recovered(rows, 'made')]).toEqual([1, all])
    expect(recovered(rows, 'failed')).toEqual(['repository plain', 'policy other'])

    const [paused] = await json<{ paused: boolean; next_run_time?: string }[]>('policy', 'list')
    expect([paused?.paused, paused?.next_run_time ?? '']).toEqual([true, ''])
    const again = await recoverAll('--resume')
    expect(recovered(again.rows, 'there already')).toEqual(all)
    const times = { create_time: expect.anything(), next_run_time: expect.anything() }
    const after = await told()
    expect(after.hosts).toEqual(
      before.hosts.map((host) => ({ ...host, create_time: expect.anything() })),
    )
    const kept = before.policies.filter(({ name }) => name === 'policies/web')
    expect(after.policies).toEqual(kept.map((policy) => ({ ...policy, ...times })))
    expect(after.repositories).toMatchObject([
      {
        name: 'repositories/safe',
        folder: moved,
        maintenance: { collect_repeat_duration_ms: 604_800_000 },
      },
    ])
    // What says something else under the same name is left as it is.
    await json('policy', 'update', 'web', '--keep-daily', '3')
    await json('host', 'remove', 'parked')
    await json('host', 'add', 'parked', '--folder', folder)
    const { rows: others } = await recoverAll()
    const failed = ['repository plain', 'host parked', 'policy other', 'policy web']
    expect(recovered(others, 'failed')).toEqual(failed)
    await json('policy', 'update', 'web', '--keep-daily', '7')
    await json('host', 'remove', 'parked')
    await json('host', 'add', 'parked', '--folder', images)
    expect(recovered((await recoverAll()).rows, 'there already')).toEqual(all)

    writeBlock(disk, 9, 200)
    const [run] = await json<RunJson[]>('policy', 'run', 'web')
    expect(run?.decisions.map(({ decision }) => decision)).not.toContain('FIRST_BACKUP')
    expect(run?.disks[0]?.stored_bytes).toBeLessThan(2 * blockSize)
    const target = join(folder, 'restored-web')
    const restore = ['restore', run?.backup ?? '', '--to', target, '--format', 'raw']
    const restored = await json<RunJson>(...restore)
    expect(digestOf(restored.disks[0]?.target_path ?? '')).toBe(digestOf(disk))

    // Two installations have saved themselves here: which one is meant has to be said.
    const newer = await json<RunJson>('repository', 'save', 'safe')
    const unclear = await blockferry('recover', moved)
    const ids = [newer, saved].map(({ backup }) => backup.slice(backup.lastIndexOf('/') + 1))
    expect([unclear.code, unclear.err]).toEqual([2, expect.stringContaining(ids[0] ?? '-')])
    expect(unclear.err).toContain(`${ids[1]} of ${hostname()}`)
    expect((await recoverAll('--backup', ids[1] ?? '', '--dry-run')).rows).toHaveLength(5)
    await json('backup', 'remove', saved.backup)
    await json('recover', moved)
    await end(up, 'SIGTERM')
  }, 120_000)
})
