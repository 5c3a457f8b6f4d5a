// The service as others see it: over gRPC, on a real PostgreSQL, with folders of images.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monotonicMs, newPointId, sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { findStorageDaemons } from '@blockferry/hypervisor'
import { launchPostgres, openPool, type RunningPostgres } from '@blockferry/postgres'
import { backup, durationFromMs, snapshot } from '@blockferry/proto'
import { connect, type RpcClient, type RunningService } from '@blockferry/rpc'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type SnapshotSettings, snapshotConfig } from './config.ts'
import { startSnapshot } from './main.ts'

const repositoryId = '0'.repeat(32)
let databaseFolder: string
let database: RunningPostgres
let home: string
let images: string
let settings: SnapshotSettings
let service: RunningService | null
let client: RpcClient<snapshot.SnapshotServiceServer>

beforeAll(async () => {
  databaseFolder = await mkdtemp(join(tmpdir(), 'bf-snapshot-db-'))
  database = await launchPostgres({ dataFolder: join(databaseFolder, 'data'), fsync: false })
}, 60_000)

afterAll(async () => {
  await database.stop()
  await rm(databaseFolder, { recursive: true })
})

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'bf-snapshot-'))
  images = join(home, 'images')
  await mkdir(images)
  settings = {
    stateFolder: join(home, 'state'),
    databaseUrl: database.url,
    logLevel: 'silent',
    limits: { reapIntervalMs: 50, leaseMs: 1_500 },
  }
  service = await startSnapshot(snapshotConfig(settings))
  client = connect('snapshot', snapshot.SnapshotServiceService, service.address)
})

afterEach(async () => {
  await stopService()
  client[Symbol.dispose]()
  await emptyDatabase()
  await rm(home, { recursive: true })
})

async function stopService(): Promise<void> {
  await service?.[Symbol.asyncDispose]()
  service = null
}

/** All tests share one PostgreSQL and start with an empty one. */
async function emptyDatabase(): Promise<void> {
  const pool = openPool(database.url)
  await pool.query('DROP SCHEMA snapshot CASCADE')
  await pool.end()
}

const folderHost = (folder: string): snapshot.Host => ({
  name: '',
  platform: { $case: 'folder', value: { folder } },
})

const createHost = (hostId: string, folder = images, requestId = '') =>
  client.createHost({ hostId, host: folderHost(folder), requestId })

async function image(path: string, sizeBytes = 4096): Promise<string> {
  const full = join(images, path)
  await mkdir(join(full, '..'), { recursive: true })
  await writeFile(full, '')
  await truncate(full, sizeBytes)
  return full
}

const beginRequest = (
  vm: string,
  more: Partial<snapshot.BeginPointRequest> = {},
): snapshot.BeginPointRequest =>
  snapshot.BeginPointRequest.create({ pointId: newPointId(), vm, repositoryId, ...more })

async function begin(vm: string, more: Partial<snapshot.BeginPointRequest> = {}) {
  const { point } = await client.beginPoint(beginRequest(vm, more))
  return point as snapshot.Point
}

async function reasonOf(work: Promise<unknown>): Promise<string> {
  const thrown = await work.then(
    () => null,
    (error: unknown) => error,
  )
  return thrown instanceof BackupError ? thrown.reason : expect.unreachable(String(thrown))
}

const points = async () => (await client.listPoints({ pageSize: 0, pageToken: '' })).points

async function waitFor(condition: () => Promise<boolean>, ms = 10_000): Promise<void> {
  const lateMs = monotonicMs() + ms
  while (monotonicMs() < lateMs) {
    if (await condition()) return
    await sleep(25)
  }
  expect.unreachable(`the condition did not come true in ${ms} ms`)
}

const listVms = (parent = '', pageSize = 0, pageToken = '') =>
  client.listVms({ parent, pageSize, pageToken })

describe('hosts', () => {
  it('are created once, also when the request is repeated, and listed in pages', async () => {
    const first = await createHost('a', images, 'request-1')
    expect(first.host).toMatchObject({ name: 'hosts/a', platform: { $case: 'folder' } })
    expect((await createHost('a', images, 'request-1')).host).toEqual(first.host)
    expect(await reasonOf(createHost('a', images, 'request-2'))).toBe('ALREADY_EXISTS')
    await createHost('b')
    const page = await client.listHosts({ pageSize: 1, pageToken: '' })
    expect(page.hosts.map((host) => host.name)).toEqual(['hosts/a'])
    const rest = await client.listHosts({ pageSize: 1, pageToken: page.nextPageToken })
    expect(rest).toMatchObject({ hosts: [{ name: 'hosts/b' }], nextPageToken: '' })
    await client.deleteHost({ name: 'hosts/a' })
    expect(await reasonOf(client.getHost({ name: 'hosts/a' }))).toBe('NOT_FOUND')
  })

  it('are refused with the field that is wrong', async () => {
    for (const hostId of ['', '-', 'a/b', 'x'.repeat(64), 'ä']) {
      expect(await reasonOf(createHost(hostId)), hostId).toBe('ARGUMENT_INVALID')
    }
    expect(await reasonOf(createHost('a', 'relative/path'))).toBe('ARGUMENT_INVALID')
    const nothing = client.createHost({ hostId: 'a', host: { name: '' }, requestId: '' })
    expect(await reasonOf(nothing)).toBe('ARGUMENT_INVALID')
  })
})

describe('VMs', () => {
  it('are listed over all hosts with what is not covered; a silent host is told apart', async () => {
    await image('web/root.raw')
    await image('web/unknown', 2 ** 21)
    await createHost('a')
    await createHost('gone', join(home, 'nowhere'))
    const listed = await listVms()
    expect(listed.vms).toMatchObject([
      {
        name: 'hosts/a/vms/web',
        state: snapshot.VmState.OFF,
        method: backup.Method.HOST,
        disks: [{ disk: 'root.raw', sizeBytes: 4096n }],
        uncoveredDisks: [{ disk: 'unknown', reason: 'DISK_FORMAT_UNSUPPORTED' }],
      },
    ])
    expect(listed.unreachableHosts).toMatchObject([
      { host: 'hosts/gone', reason: 'HOST_UNREACHABLE' },
    ])
    expect((await client.getVm({ name: 'web' })).vm?.identity).toBe('web')
    expect(await reasonOf(client.getVm({ name: 'nobody' }))).toBe('HOST_UNREACHABLE')
    await client.deleteHost({ name: 'hosts/gone' })
    expect(await reasonOf(client.getVm({ name: 'nobody' }))).toBe('VM_NOT_FOUND')
  })

  it('with odd names are found by their resource name, in pages', async () => {
    await image('日本 語/d.raw')
    await image('line\nbreak/d.raw')
    await createHost('a')
    const { vms, nextPageToken } = await listVms('hosts/a', 1)
    expect(vms[0]?.displayName).toBe('line\nbreak')
    const { vms: rest } = await listVms('hosts/a', 1, nextPageToken)
    const name = rest[0]?.name ?? ''
    expect(name).toBe('hosts/a/vms/%E6%97%A5%E6%9C%AC%20%E8%AA%9E')
    expect((await client.getVm({ name })).vm?.displayName).toBe('日本 語')
  })
})

describe('points', () => {
  it('are begun, confirmed and released, each as often as a caller repeats it', async () => {
    const path = await image('web/root.raw')
    await createHost('a')
    const request = beginRequest('web')
    const both = await Promise.all([client.beginPoint(request), client.beginPoint(request)])
    expect(both[0]).toEqual(both[1])
    expect(await client.beginPoint(request)).toEqual(both[0])
    const point = both[0].point as snapshot.Point
    expect(point).toMatchObject({
      consistency: backup.Consistency.OFF,
      driver: 'folder',
      disks: [{ disk: 'root.raw', address: { $case: 'rawPath', value: path }, format: 'raw' }],
      decisions: [{ decision: 'MACHINE_OFF' }],
    })
    expect(await points()).toMatchObject([
      { pointId: point.pointId, vm: 'hosts/a/vms/web', ours: true, held: true },
    ])
    await client.confirmPoint({ pointId: point.pointId })
    const outcome = snapshot.PointOutcome.COMMITTED
    await client.releasePoint({ pointId: point.pointId, outcome })
    await client.releasePoint({ pointId: point.pointId, outcome })
    expect(await points()).toEqual([])
    expect(await reasonOf(client.confirmPoint({ pointId: point.pointId }))).toBe('POINT_NOT_FOUND')
  })

  it('are refused while another point holds the VM, with its owner', async () => {
    await image('web/root.raw')
    await createHost('a')
    const first = await begin('web', { leaseDuration: durationFromMs(60_000) })
    const thrown = await begin('web').catch((error: BackupError) => error)
    expect(thrown).toMatchObject({ reason: 'VM_BUSY', metadata: { owner: first.pointId } })
  })

  it('of images that a caller names need no host', async () => {
    const path = await image('loose.raw')
    const point = await begin('my/own vm', { images: [path] })
    expect(point.vm).toMatchObject({ name: 'hosts/-/vms/my%2Fown%20vm', displayName: 'my/own vm' })
    await client.confirmPoint({ pointId: point.pointId })
  })

  it('tell a change of the image from a quiet one', async () => {
    const path = await image('web/root.raw')
    await createHost('a')
    const point = await begin('web')
    const file = await open(path, 'r+')
    await file.write('x', 0)
    await file.close()
    expect(await reasonOf(client.confirmPoint({ pointId: point.pointId }))).toBe('IMAGE_CHANGED')
  })

  it('that nobody holds are removed after their lease, held ones stay', async () => {
    await image('a/d.raw')
    await image('b/d.raw')
    await createHost('h')
    const left = await begin('b')
    const held = await begin('a')
    for (let round = 0; round < 50; round++) {
      await client.holdPoint({ pointId: held.pointId })
      await sleep(50)
    }
    expect((await points()).map((point) => point.pointId)).toEqual([held.pointId])
    const { pointId } = left
    expect(await reasonOf(client.holdPoint({ pointId }))).toBe('POINT_NOT_FOUND')
    await begin('b')
  })

  it('stay when their run comes back while another one is removed', async () => {
    const journal = join(home, 'journal')
    await writeFile(journal, '')
    const vms = ['first', 'one', 'other']
    for (const vm of vms) {
      await image(`${vm}/d.raw`)
      const start = `echo ${vm} >> ${journal}; sleep 1.5`
      await writeFile(join(images, vm, 'vm.yaml'), `start: ${start}`)
    }
    await createHost('h')
    const ids = new Map<string, string>()
    // The removal of the first lasts until the leases of both others have run out.
    for (const vm of vms.toReversed()) {
      const leaseDuration = durationFromMs(vm === 'first' ? 500 : 1_500)
      ids.set(vm, (await begin(vm, { leaseDuration })).pointId)
    }
    const removing = async () => (await readFile(journal, 'utf8')).trim().split('\n')
    await waitFor(async () => (await removing()).length === 2)
    const seen = await removing()
    const waiting = vms.find((vm) => !seen.includes(vm)) ?? ''
    const pointId = ids.get(waiting) ?? ''
    await client.holdPoint({ pointId, leaseDuration: durationFromMs(60_000) })
    await waitFor(async () => (await points()).length === 1)
    await sleep(500)
    // A removal would have begun to start the VM by now.
    expect(await removing()).toEqual(seen)
    expect(await points()).toMatchObject([{ pointId, held: true }])
  })

  it('are undone when their caller goes away in the middle', async () => {
    await image('web/d.raw')
    await writeFile(
      join(images, 'web/vm.yaml'),
      `stop: sleep 0.5\nstart: echo started >> ${join(home, 'journal')}`,
    )
    await createHost('a')
    const abort = new AbortController()
    const begun = client.beginPoint(beginRequest('web'), { signal: abort.signal })
    await sleep(200)
    abort.abort()
    await expect(begun).rejects.toThrow()
    await waitFor(async () => (await points()).length === 0)
    expect(await readFile(join(home, 'journal'), 'utf8')).toBe('started\n')
  })

  it('are refused with the field that is wrong', async () => {
    const wrong: Partial<snapshot.BeginPointRequest>[] = [
      { pointId: 'x' },
      { pointId: 'ABCDEF012345' },
      { vm: '' },
      { repositoryId: 'short' },
      { images: ['relative'] },
      { keptPointIds: ['?'] },
      { leaseDuration: durationFromMs(-1) },
    ]
    for (const more of wrong) {
      expect(await reasonOf(begin('web', more)), Object.keys(more)[0]).toBe('ARGUMENT_INVALID')
    }
    const outcome = snapshot.PointOutcome.UNSPECIFIED
    const release = client.releasePoint({ pointId: newPointId(), outcome })
    expect(await reasonOf(release)).toBe('ARGUMENT_INVALID')
  })
})

describe('a restart of the service', () => {
  /** The service as a process of its own, so that it can be killed. */
  async function startProcess(): Promise<ChildProcess> {
    await stopService()
    const program = `
      import { startSnapshot } from ${JSON.stringify(join(import.meta.dirname, 'main.ts'))}
      await startSnapshot(${JSON.stringify(snapshotConfig(settings))})
      console.log('up')`
    const child = spawn(
      process.execPath,
      ['--conditions=@blockferry/source', '--input-type=module', '-e', program],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    await once(child.stdout as NodeJS.EventEmitter, 'data')
    return child
  }

  async function kill(child: ChildProcess): Promise<void> {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }

  const hooks = `stop: echo stop >> JOURNAL\nstart: echo start >> JOURNAL`
  const journal = () => readFile(join(home, 'journal'), 'utf8')

  async function hookedVm(): Promise<void> {
    await image('web/d.raw')
    await writeFile(join(images, 'web/vm.yaml'), hooks.replaceAll('JOURNAL', join(home, 'journal')))
    await createHost('a')
  }

  it('finds what was left by kill -9, starts the VM again and keeps the tag', async () => {
    await hookedVm()
    const child = await startProcess()
    const point = await begin('web', { leaseDuration: durationFromMs(60_000) })
    const tag = await readFile(join(settings.stateFolder, 'installation.json'), 'utf8')
    await kill(child)
    await waitFor(async () => (await findStorageDaemons(home)).length === 0)
    expect(await journal()).toBe('stop\n')
    service = await startSnapshot(snapshotConfig(settings))
    expect(await points()).toMatchObject([{ pointId: point.pointId, ours: true, held: false }])
    await waitFor(async () => (await points()).length === 0)
    expect(await journal()).toBe('stop\nstart\n')
    expect(await readFile(join(settings.stateFolder, 'installation.json'), 'utf8')).toBe(tag)
  })

  it('lets a run that still needs a point hold and release it', async () => {
    await hookedVm()
    const child = await startProcess()
    const { pointId } = await begin('web', { leaseDuration: durationFromMs(60_000) })
    await kill(child)
    service = await startSnapshot(snapshotConfig(settings))
    await client.holdPoint({ pointId, leaseDuration: durationFromMs(60_000) })
    await sleep(2_500)
    expect(await points()).toMatchObject([{ pointId, held: true }])
    expect(await reasonOf(client.confirmPoint({ pointId }))).toBe('POINT_LOST')
    await client.releasePoint({ pointId, outcome: snapshot.PointOutcome.DROPPED })
    expect(await journal()).toBe('stop\nstart\n')
  })

  it('starts a VM again also while the database is down', async () => {
    await hookedVm()
    const child = await startProcess()
    await begin('web', { leaseDuration: durationFromMs(60_000) })
    await kill(child)
    const nowhere = 'postgresql://nobody@127.0.0.1:1/none'
    service = await startSnapshot(snapshotConfig({ ...settings, databaseUrl: nowhere }))
    await waitFor(async () => (await journal()) === 'stop\nstart\n')
    expect((await listVms()).vms).toHaveLength(1)
    expect(await reasonOf(createHost('b'))).toBe('DATABASE_UNREACHABLE')
  })

  it('in order starts a stopped VM again at once', async () => {
    await hookedVm()
    await begin('web', { leaseDuration: durationFromMs(60_000) })
    await stopService()
    expect(await journal()).toBe('stop\nstart\n')
  })

  it('never touches what another installation holds', async () => {
    await hookedVm()
    const { pointId } = await begin('web', { leaseDuration: durationFromMs(60_000) })
    await writeFile(join(settings.stateFolder, 'installation.json'), '{"tag":"ffffff"}')
    const other = await startSnapshot(
      snapshotConfig({ ...settings, address: `unix:${join(home, 'other.sock')}` }),
    )
    await sleep(2_500)
    await other[Symbol.asyncDispose]()
    await client.confirmPoint({ pointId })
    expect(await points()).toMatchObject([{ pointId, ours: true, held: true }])
  })
})

describe('a state folder', () => {
  it('whose sockets of points would have too long a path is refused at the start', async () => {
    const stateFolder = join(home, 'x'.repeat(80 - home.length))
    const failure = await startSnapshot(snapshotConfig({ ...settings, stateFolder })).then(
      (started) => started[Symbol.asyncDispose](),
      (thrown) => thrown,
    )
    expect(failure).toMatchObject({ reason: 'ARGUMENT_INVALID' })
    expect(failure.message).toContain('run folder')
  })
})
