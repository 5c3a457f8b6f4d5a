import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { newPointId } from '@blockferry/core'
import type { BackupError } from '@blockferry/errors'
import { launchPostgres, openPool, type Pool, type RunningPostgres } from '@blockferry/postgres'
import { catalog, durationFromMs, move, backup as proto, retention } from '@blockferry/proto'
import { connect, type RpcClient, type RunningService } from '@blockferry/rpc'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { catalogConfig, startCatalog } from './index.ts'

const oddName = `odd „ü" $(x) 'q'/a=b\nnewline %_\\ \u0000end`
const mib = 1024 * 1024

let folder: string
let postgres: RunningPostgres
let pool: Pool
let moverProcess: ChildProcess
let mover: RpcClient<move.MoveServiceServer>
let service: RunningService
let calls: RpcClient<catalog.CatalogServiceServer>

beforeAll(async () => {
  folder = await mkdtemp('/tmp/bf-catalog-')
  ;[postgres] = await Promise.all([launchDatabase(), startMover()])
  pool = openPool(postgres.url)
  mover = connect<move.MoveServiceServer>('move', move.MoveServiceService, moveAddress())
  await start()
}, 60_000)

afterAll(async () => {
  calls[Symbol.dispose]()
  mover[Symbol.dispose]()
  await service[Symbol.asyncDispose]()
  await pool.end()
  await postgres.stop()
  const exited = once(moverProcess, 'exit')
  if (moverProcess.kill('SIGTERM')) await exited
  await rm(folder, { recursive: true, force: true })
})

const moveAddress = (): string => `unix:${folder}/move.sock`

const launchDatabase = (): Promise<RunningPostgres> =>
  launchPostgres({ dataFolder: join(folder, 'pg'), fsync: false })

/** The mover runs in a process of its own: services meet in the protos alone. */
async function startMover(): Promise<void> {
  const index = fileURLToPath(new URL('../../move/src/index.ts', import.meta.url))
  const program = `
    import { moveConfig, startMove } from ${JSON.stringify(index)}
    await startMove(moveConfig({ address: ${JSON.stringify(moveAddress())},
      runFolder: ${JSON.stringify(join(folder, 'run'))},
      keyFolder: ${JSON.stringify(join(folder, 'keys'))}, logLevel: 'silent' }))
    console.log('ready')`
  moverProcess = spawn(
    process.execPath,
    ['--conditions=@blockferry/source', '--input-type=module', '--eval', program],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  if (moverProcess.stdout) await once(moverProcess.stdout, 'data')
}

async function start(moverAt = moveAddress()): Promise<void> {
  const address = `unix:${folder}/catalog.sock`
  service = await startCatalog(
    catalogConfig({
      address,
      databaseUrl: postgres.url,
      moveAddress: moverAt,
      logLevel: 'silent',
      listPageSize: 3,
    }),
  )
  calls = connect<catalog.CatalogServiceServer>('catalog', catalog.CatalogServiceService, address)
}

async function restart(moverAt?: string): Promise<void> {
  calls[Symbol.dispose]()
  await service[Symbol.asyncDispose]()
  await start(moverAt)
}

const create = async (repositoryId: string, more: object = {}) => {
  const request = {
    ...{ repositoryId, folder: join(folder, repositoryId), adopt: false },
    ...{ requestId: '', passphraseFile: '' },
  }
  const { repository } = await calls.createRepository({ ...request, ...more })
  return repository as catalog.Repository
}

let number = 0

/** A real, committed backup that is not in the catalog. */
async function commit(
  repository: string,
  described: Partial<proto.Backup> = {},
): Promise<proto.Backup> {
  number++
  const path = join(folder, `image-${number}`)
  await writeFile(path, Buffer.alloc(mib, number))
  const sessionId = `run-${number}`
  const request = move.StartBackupRequest.create({
    sessionId,
    folder: join(folder, repository),
    token: { incarnation: 1n, number: BigInt(number) },
    point: {
      pointId: newPointId(),
      disks: [
        {
          disk: 'vda „ü"',
          sizeBytes: mib,
          format: 'raw',
          location: path,
          address: { $case: 'rawPath', value: path },
        },
      ],
      pointTime: new Date(1_700_000_000_000 + number * 1000),
      freezeDuration: { seconds: 0n, nanos: 5_000_000 },
      driver: 'folder',
      vmConfigJson: JSON.stringify({ driver: 'folder', commandLine: [], note: oddName }),
    },
    backup: {
      vmIdentity: 'id-1',
      vmDisplayName: oddName,
      policy: 'policies/nightly',
      level: proto.Level.FULL,
      startTime: new Date(1_700_000_000_000),
      decisions: [{ decision: 'FIRST_BACKUP', disk: '', message: oddName }],
      uncoveredDisks: [{ disk: 'cd', location: '/x', reason: 'DISK_FORMAT_UNSUPPORTED' }],
      ...described,
    },
  })
  await mover.startBackup(request)
  const name = `sessions/${sessionId}`
  for await (const { session } of mover.watchSession({ name })) {
    if (session?.state === move.Session_State.FAILED) throw new Error(session.errorMessage)
    if (session?.state === move.Session_State.MOVED) break
  }
  const { backup } = await mover.commitBackup({ name, decisions: [] })
  return { ...(backup as proto.Backup), name: `repositories/${repository}/${backup?.name}` }
}

const record = async (backup: proto.Backup): Promise<proto.Backup> => {
  await calls.recordBackup({ backup })
  return backup
}

const list = async (more: object = {}) =>
  await calls.listBackups({
    ...{ parent: '', vm: '', pageSize: 0, pageToken: '', showRemoved: false },
    ...more,
  })

const failureOf = (call: Promise<unknown>): Promise<BackupError> =>
  call.then(
    () => {
      throw new Error('the call succeeded')
    },
    (thrown) => thrown,
  )

describe('repositories', () => {
  it('creates one, and gives the same answer to the same request', async () => {
    const made = await create('first', { requestId: 'r1' })
    expect(made).toMatchObject({ name: 'repositories/first', backupCount: 0n })
    expect(made.repositoryId).toMatch(/^[0-9a-f]{32}$/)
    expect(await create('first', { requestId: 'r1' })).toEqual(made)
    expect((await failureOf(create('first', { requestId: 'r2' }))).reason).toBe('ALREADY_EXISTS')
    const elsewhere = { folder: join(folder, 'first'), requestId: 'r3' }
    expect((await failureOf(create('other', elsewhere))).reason).toBe('REPOSITORY_EXISTS')
    const adopted = await failureOf(create('other', { ...elsewhere, adopt: true }))
    expect(adopted.reason).toBe('ALREADY_EXISTS')
    expect(adopted.message).toContain('repositories/first')
  })

  it('refuses names that are none, and says which field', async () => {
    for (const name of ['', 'a/b', 'a\nb', '..', '.hidden', 'ü', 'x'.repeat(64), "'; DROP"]) {
      const failure = await failureOf(create(name))
      expect(failure.reason, name).toBe('ARGUMENT_INVALID')
      expect(failure.metadata.field).toBe('repository_id')
    }
    expect((await failureOf(create('rel', { folder: 'x' }))).metadata.field).toBe('folder')
    const get = calls.getRepository({ name: 'repositories/none' })
    expect((await failureOf(get)).reason).toBe('NOT_FOUND')
    expect((await failureOf(calls.getRepository({ name: 'x' }))).reason).toBe('ARGUMENT_INVALID')
    expect((await failureOf(create('void', { adopt: true }))).reason).toBe('REPOSITORY_MISSING')
  })

  it('tells the bytes that are there now', async () => {
    await create('live')
    await record(await commit('live'))
    const { repository } = await calls.getRepository({ name: 'repositories/live' })
    expect(repository?.storedBytes).toBeGreaterThan(0n)
    expect(repository?.backupCount).toBe(1n)
  })

  it('forgets one, and takes it in again with all its backups', async () => {
    await create('again')
    const backups = [await record(await commit('again')), await record(await commit('again'))]
    await calls.deleteRepository({ name: 'repositories/again' })
    expect((await failureOf(list({ parent: 'repositories/again' }))).reason).toBe('NOT_FOUND')
    expect((await create('again', { adopt: true })).backupCount).toBe(2n)
    expect((await list({ parent: 'repositories/again' })).backups).toEqual(backups.reverse())
  })
})

describe('backups', () => {
  it('records one as often as it is told, and gives it back field by field', async () => {
    await create('exact')
    const backup = await record(await commit('exact'))
    await record(backup)
    expect((await calls.getBackup({ name: backup.name })).backup).toEqual(backup)
    expect((await list({ parent: 'repositories/exact' })).backups).toEqual([backup])
    const { rows } = await pool.query('SELECT * FROM catalog.disks WHERE repository = $1', [
      'exact',
    ])
    expect(rows.length).toBe(1)
    const none = calls.getBackup({ name: 'repositories/exact/backups/none' })
    expect((await failureOf(none)).reason).toBe('BACKUP_NOT_FOUND')
    const nowhere = { ...backup, name: 'repositories/nowhere/backups/b' }
    expect((await failureOf(calls.recordBackup({ backup: nowhere }))).reason).toBe('NOT_FOUND')
  })

  it('lists them newest first, by VM identity or name, page by page', async () => {
    await create('paged')
    const parent = 'repositories/paged'
    const made: string[] = []
    for (let count = 0; count < 5; count++) {
      const vmIdentity = count % 2 ? 'paged-odd' : 'paged-even'
      made.unshift((await record(await commit('paged', { vmIdentity }))).name)
    }
    const seen: string[] = []
    let pageToken = ''
    do {
      const page = await list({ parent, pageSize: 2, pageToken })
      expect(page.backups.length).toBeLessThanOrEqual(2)
      seen.push(...page.backups.map(({ name }) => name))
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    expect(seen).toEqual(made)
    expect((await list({ parent, vm: 'paged-odd' })).backups.length).toBe(2)
    expect((await list({ parent, vm: oddName })).backups.length).toBe(5)
    expect((await list({ parent, vm: "' OR 1=1" })).backups).toEqual([])
  })

  it('lists them however large they are', async () => {
    await create('large')
    const vmConfigJson = JSON.stringify({ commandLine: ['x'.repeat(1_500_000)] })
    const made = await commit('large', { vmIdentity: 'large' })
    const names: string[] = []
    for (let count = 0; count < 8; count++) {
      const name = `repositories/large/backups/large-${count}`
      await record({ ...made, name, vmConfigJson })
      names.push(name)
    }
    const seen: string[] = []
    let pageToken = ''
    do {
      const page = await list({ parent: 'repositories/large', pageSize: 1000, pageToken })
      seen.push(...page.backups.map(({ name }) => name))
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    expect(seen.sort()).toEqual(names)
  })

  it('lists each VM once with its newest backup and its sums', async () => {
    await create('vms')
    const older = await record(await commit('vms', { vmIdentity: 'vm-x', vmDisplayName: 'a-old' }))
    const newer = await record(await commit('vms', { vmIdentity: 'vm-x', vmDisplayName: 'a-new' }))
    const { vms } = await calls.listProtectedVms({ pageSize: 0, pageToken: '' })
    const stored = (backup: proto.Backup) => backup.disks[0]?.storedBytes ?? 0n
    expect(vms.filter(({ vmIdentity }) => vmIdentity === 'vm-x')).toEqual([
      {
        vmIdentity: 'vm-x',
        vmDisplayName: 'a-new',
        backupCount: 2n,
        latestBackup: newer.name,
        latestPointTime: newer.pointTime,
        sizeBytes: BigInt(mib),
        storedBytes: stored(older) + stored(newer),
      },
    ])
    expect(vms.find(({ vmIdentity }) => vmIdentity === 'id-1')?.vmDisplayName).toBe(oddName)
  })
})

describe('rebuild', () => {
  const dump = async (repository: string) => {
    const name = `repositories/${repository}`
    const { rows } = await pool.query(
      'SELECT * FROM catalog.backups WHERE repository = $1 ORDER BY backup',
      [repository],
    )
    const disks = await pool.query(
      'SELECT * FROM catalog.disks WHERE repository = $1 ORDER BY backup, disk',
      [repository],
    )
    return { rows, disks: disks.rows, listed: (await list({ parent: name })).backups }
  }

  it('makes a lost database say the same, field by field', async () => {
    await create('lost')
    for (let count = 0; count < 7; count++) {
      await record(await commit('lost', { vmIdentity: count % 2 ? 'lost/1' : 'lost\n2' }))
    }
    const before = await dump('lost')
    expect(before.rows.length).toBe(7)
    await pool.query('DROP SCHEMA catalog CASCADE')
    await restart()
    await create('lost', { adopt: true })
    expect(await dump('lost')).toEqual(before)
  })

  it('enters what nobody recorded and removes what has no manifest', async () => {
    await create('mend')
    const gone = await record(await commit('mend'))
    const kept = await record(await commit('mend'))
    const unrecorded = await commit('mend')
    await rm(await manifestOf('mend', gone))
    const rebuilt = await calls.rebuildCatalog({ name: 'repositories/mend' })
    expect(rebuilt).toEqual({ backupCount: 2n, removedCount: 1n, damagedManifests: [] })
    expect((await list({ parent: 'repositories/mend' })).backups).toEqual([unrecorded, kept])
  })

  it('reports a damaged manifest and removes nothing because of it', async () => {
    await create('hurt')
    const hurt = await record(await commit('hurt'))
    const whole = await record(await commit('hurt'))
    const path = await manifestOf('hurt', hurt)
    await writeFile(path, (await readFile(path)).subarray(0, 50))
    const rebuilt = await calls.rebuildCatalog({ name: 'repositories/hurt' })
    expect(rebuilt.damagedManifests.map(({ reason }) => reason)).toEqual(['MANIFEST_CORRUPT'])
    expect(rebuilt).toMatchObject({ backupCount: 2n, removedCount: 0n })
    expect((await list({ parent: 'repositories/hurt' })).backups).toEqual([whole, hurt])
  })

  it('and a plan keep a damaged backup, which fills no place', async () => {
    await create('torn')
    const old = await record(await commit('torn', { vmIdentity: 'torn' }))
    const torn = await record(await commit('torn', { vmIdentity: 'torn' }))
    const path = await manifestOf('torn', torn)
    await writeFile(path, (await readFile(path)).subarray(0, 50))
    const request = catalog.PlanRetentionRequest.fromPartial({
      ...{ parent: 'repositories/torn', vm: 'torn', policy: 'policies/nightly' },
      retention: { keepLast: 1 },
    })
    const { decisions } = await calls.planRetention(request)
    const { KEEP_DAMAGED, KEEP_NEWEST } = retention.RetentionReason_Kind
    expect(decisions.map(({ backup, reasons }) => [backup, reasons[0]?.kind])).toEqual([
      [torn.name, KEEP_DAMAGED],
      [old.name, KEEP_NEWEST],
    ])
  })

  it('changes nothing when the repository is away, another one, or the mover is down', async () => {
    await create('away')
    const backup = await record(await commit('away'))
    const name = 'repositories/away'
    const path = join(folder, 'away')
    await rename(path, `${path}-moved`)
    expect((await failureOf(calls.rebuildCatalog({ name }))).reason).toBe('REPOSITORY_MISSING')
    await mover.createRepository({ folder: path, passphraseFile: '' })
    const other = await failureOf(calls.rebuildCatalog({ name }))
    expect(other.reason).toBe('REPOSITORY_MISSING')
    expect(other.message).toContain('mount the right one')
    await rm(path, { recursive: true })
    await rename(`${path}-moved`, path)
    await restart(`unix:${folder}/nobody.sock`)
    expect((await failureOf(calls.rebuildCatalog({ name }))).reason).toBe('SERVICE_UNREACHABLE')
    expect((await failureOf(calls.getRepository({ name }))).reason).toBe('SERVICE_UNREACHABLE')
    expect((await list({ parent: name })).backups).toEqual([backup])
    await restart()
    expect((await calls.rebuildCatalog({ name: '' })).removedCount).toBe(0n)
  })
})

async function manifestOf(repository: string, backup: proto.Backup): Promise<string> {
  const root = join(folder, repository, 'manifests')
  const id = backup.name.split('/').at(-1) ?? ''
  for (const vm of await readdir(root)) {
    for (const name of await readdir(join(root, vm))) {
      if (name.includes(`-${id}.`)) return join(root, vm, name)
    }
  }
  throw new Error(`no manifest of ${id}`)
}

describe('an encrypted repository', () => {
  const passphraseFile = () => join(folder, 'passphrase')

  it('is created, forgotten and taken in again with its passphrase', async () => {
    await writeFile(passphraseFile(), 'correct horse\n', { mode: 0o600 })
    const request = {
      ...{ repositoryId: 'secret', folder: join(folder, 'secret'), adopt: false },
      ...{ requestId: 'once', passphraseFile: passphraseFile() },
    }
    const created = await calls.createRepository(request)
    expect(created.repository?.encrypted).toBe(true)
    expect(created.recoveryKey).toMatch(/^bfkey-/)
    // The key is told once, the rest as before.
    const again = await calls.createRepository(request)
    expect(again).toMatchObject({ repository: { encrypted: true }, recoveryKey: '' })

    const name = 'repositories/secret'
    await calls.deleteRepository({ name })
    // On another machine nothing is open, and no key is there.
    const exited = once(moverProcess, 'exit')
    if (moverProcess.kill('SIGTERM')) await exited
    await rm(join(folder, 'keys'), { recursive: true })
    await startMover()
    await restart()
    const adopt = { ...request, adopt: true, requestId: '' }
    const closed = await failureOf(calls.createRepository({ ...adopt, passphraseFile: '' }))
    expect(closed.reason).toBe('KEY_MISSING')
    const adopted = await calls.createRepository(adopt)
    expect(adopted).toMatchObject({ repository: { encrypted: true }, recoveryKey: '' })
    const { repository } = await calls.getRepository({ name })
    expect(repository?.encrypted).toBe(true)
  })

  it('is maintained as its creator says, daily when nothing is said, and as it is updated', async () => {
    const day = durationFromMs(86_400_000)
    const undoDuration = durationFromMs(7 * 86_400_000)
    const rate = { verifyBytesPerSecond: 0n, collectBytesPerSecond: 0n }
    const byDefault = { collectRepeatDuration: day, undoDuration, saveRepeatDuration: day, ...rate }
    const create = (repositoryId: string, maintenance?: catalog.Maintenance) =>
      calls.createRepository({
        ...{ repositoryId, folder: join(folder, repositoryId), adopt: false, requestId: '' },
        ...{ passphraseFile: '', maintenance },
      })
    expect((await create('daily')).repository?.maintenance).toEqual(byDefault)
    const weekly = { verifyRepeatDuration: durationFromMs(7 * 86_400_000), ...rate }
    const { repository } = await create('weekly', weekly)
    expect(repository?.maintenance).toEqual({ undoDuration, ...weekly })

    const name = 'repositories/weekly'
    const changed = {
      ...{ collectRepeatDuration: durationFromMs(3_600_000), undoDuration: durationFromMs(0) },
      ...{ verifyBytesPerSecond: 5n, collectBytesPerSecond: 6n },
    }
    const updated = await calls.updateRepository({ name, maintenance: changed })
    expect(updated.repository).toMatchObject({ name, maintenance: changed })
    expect((await calls.getRepository({ name })).repository?.maintenance).toEqual(changed)

    for (const [field, maintenance] of [
      [
        'maintenance.collect_repeat_duration',
        { collectRepeatDuration: durationFromMs(59_999), ...rate },
      ],
      ['maintenance.undo_duration', { undoDuration: durationFromMs(-1), ...rate }],
      [
        'maintenance.verify_repeat_duration',
        { verifyRepeatDuration: durationFromMs(367 * 86_400_000), ...rate },
      ],
      ['maintenance.verify_bytes_per_second', { ...rate, verifyBytesPerSecond: -1n }],
      ['maintenance', undefined],
    ] as const) {
      const refused = await failureOf(calls.updateRepository({ name, maintenance }))
      expect(refused).toMatchObject({ reason: 'ARGUMENT_INVALID', metadata: { field } })
    }
    const unknown = { name: 'repositories/none', maintenance: changed }
    expect((await failureOf(calls.updateRepository(unknown))).reason).toBe('NOT_FOUND')
  })

  it('notes what verifications proved and found, beside what the manifests say', async () => {
    const place = { repositoryId: 'proven', folder: join(folder, 'proven'), adopt: false }
    const rest = { requestId: '', passphraseFile: '', maintenance: undefined }
    await calls.createRepository({ ...place, ...rest })
    const parent = 'repositories/proven'
    const nameOf = (id: string) => `${parent}/backups/${id}`
    const record = (id: string) =>
      calls.recordBackup({
        backup: proto.Backup.fromPartial({ name: nameOf(id), vmIdentity: 'vm' }),
      })
    for (const id of ['a', 'b', 'c']) await record(id)
    const note = { parent, provenBackups: ['a', 'gone'], damagedBackups: ['b'] }
    await calls.recordVerification(note)
    const list = async () => {
      const request = { parent, vm: '', pageSize: 0, pageToken: '', showRemoved: true }
      const { backups } = await calls.listBackups(request)
      return Object.fromEntries(backups.map((each) => [each.name.slice(-1), each]))
    }
    const first = await list()
    expect(first.a).toMatchObject({ damaged: false, verifyTime: expect.any(Date) })
    expect(first.b).toMatchObject({ damaged: true, verifyTime: expect.any(Date) })
    expect([first.c?.damaged, first.c?.verifyTime]).toEqual([false, undefined])
    await calls.recordVerification({ ...note, provenBackups: ['b'], damagedBackups: [] })
    // A rebuild, or a run that is taken over, records it once more.
    await record('b')
    const { backup } = await calls.getBackup({ name: nameOf('b') })
    expect(backup).toMatchObject({ damaged: false, verifyTime: expect.any(Date) })
    const unknown = calls.recordVerification({ ...note, parent: 'repositories/none' })
    expect((await failureOf(unknown)).reason).toBe('NOT_FOUND')
  })

  it('tells its time, and believes a clock that is confirmed when its time is lost', async () => {
    const place = join(folder, 'timed')
    await calls.createRepository({
      ...{ repositoryId: 'timed', folder: place, adopt: false, requestId: '' },
      ...{ passphraseFile: '', maintenance: undefined },
    })
    const name = 'repositories/timed'
    const told = await calls.advanceTime({ name, confirmClock: false })
    expect(Math.abs(Date.now() - (told.repositoryTime?.getTime() ?? 0))).toBeLessThan(60_000)
    expect(told.aheadDuration).toEqual(durationFromMs(0))
    await rm(join(place, 'time'))
    const lost = await failureOf(calls.advanceTime({ name, confirmClock: false }))
    expect(lost.reason).toBe('REPOSITORY_DAMAGED')
    expect(lost.message).toContain('blockferry repository clock')
    const confirmed = await calls.advanceTime({ name, confirmClock: true })
    expect(confirmed.repositoryTime?.getTime()).toBeGreaterThan(Date.now() - 60_000)
    expect(await calls.advanceTime({ name, confirmClock: false })).toBeDefined()
  })

  it('gets and loses secrets by its name', async () => {
    const name = 'repositories/secret'
    const { keySlot, recoveryKey } = await calls.addKeySlot({
      ...{ name, passphraseFile: '', label: 'safe' },
    })
    expect(recoveryKey).toMatch(/^bfkey-/)
    const labels = async () =>
      (await calls.listKeySlots({ name })).keySlots.map(({ label }) => label)
    expect(await labels()).toContain('safe')
    await calls.removeKeySlot({ name, slotId: keySlot?.slotId ?? '' })
    expect(await labels()).not.toContain('safe')
    await calls.unlockRepository({ name, passphraseFile: passphraseFile() })
    const missing = await failureOf(calls.listKeySlots({ name: 'repositories/nobody' }))
    expect(missing.reason).toBe('NOT_FOUND')
    // Its own slot goes last of all but one; then nothing of the mover's opens it.
    const { keySlots } = await calls.listKeySlots({ name })
    const own = keySlots.filter(({ label }) => label.startsWith('installation'))
    for (const { slotId } of own) await calls.removeKeySlot({ name, slotId }).catch(() => {})
    expect(
      (await failureOf(calls.addKeySlot({ name, passphraseFile: '', label: '' }))).reason,
    ).toBe('KEY_WRONG')
  })
})
