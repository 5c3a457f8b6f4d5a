// The snapshot service with a real guest: its points over kill -9 of the service, and
// the same VM after it was powered off.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { monotonicMs, newPointId, sleep } from '@blockferry/core'
import { asBackupError } from '@blockferry/errors'
import { findStorageDaemons } from '@blockferry/hypervisor'
import { launchPostgres, type RunningPostgres } from '@blockferry/postgres'
import { backup, durationFromMs, snapshot } from '@blockferry/proto'
import { connect, type RpcClient } from '@blockferry/rpc'
import { snapshotConfig } from '@blockferry/snapshot'
import { buildGuest, Guest, type GuestOptions } from '@blockferry/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const run = promisify(execFile)
const uuid = '5a5a5a5a-0000-4000-8000-00000000beef'
const repositoryId = 'ab'.repeat(16)
const leaseMs = 1_500

let folder: string
let database: RunningPostgres
let guest: Guest
let service: ChildProcess
let client: RpcClient<snapshot.SnapshotServiceServer>

const config = () =>
  snapshotConfig({
    stateFolder: join(folder, 's'),
    databaseUrl: database.url,
    logLevel: 'warn',
    limits: { reapIntervalMs: 200, leaseMs },
  })

const guestOptions = async (): Promise<GuestOptions> => ({
  files: await buildGuest(),
  folder: join(folder, 'vms', 'live'),
  name: 'live',
  uuid,
  append: 'writer=1',
  disks: [
    { path: join(folder, 'a.qcow2'), format: 'qcow2', sizeBytes: 128 * 2 ** 20 },
    { path: join(folder, 'b.qcow2'), format: 'qcow2', sizeBytes: 32 * 2 ** 20, filesystem: false },
  ],
})

async function startService(): Promise<void> {
  const program = `
    import { startSnapshot } from '@blockferry/snapshot'
    await startSnapshot(${JSON.stringify(config())})
    console.log('up')`
  service = spawn(
    process.execPath,
    ['--conditions=@blockferry/source', '--input-type=module', '-e', program],
    { stdio: ['ignore', 'pipe', 'inherit'], cwd: import.meta.dirname },
  )
  await once(service.stdout as NodeJS.EventEmitter, 'data')
}

async function killService(): Promise<void> {
  service.kill('SIGKILL')
  await once(service, 'exit')
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bf-ss-'))
  database = await launchPostgres({ dataFolder: join(folder, 'postgres'), fsync: false })
  guest = await Guest.start(await guestOptions())
  await startService()
  client = connect('snapshot', snapshot.SnapshotServiceService, config().address)
  const value = { monitorFolder: join(folder, 'vms'), monitorSockets: [], fleeceFolder: '' }
  const host = snapshot.Host.create({ platform: { $case: 'qemu', value } })
  await client.createHost({ hostId: 'here', host, requestId: '' })
}, 120_000)

afterAll(async () => {
  client?.[Symbol.dispose]()
  if (service) await killService()
  await guest?.kill()
  await database?.stop()
  await rm(folder, { recursive: true })
})

async function begin(more: Partial<snapshot.BeginPointRequest> = {}): Promise<snapshot.Point> {
  const about = { pointId: newPointId(), vm: 'live', repositoryId, ...more }
  const { point } = await client.beginPoint(snapshot.BeginPointRequest.create(about))
  return point as snapshot.Point
}

const release = (
  point: snapshot.Point,
  outcome: snapshot.PointOutcome = snapshot.PointOutcome.COMMITTED,
) => client.releasePoint({ pointId: point.pointId, outcome })

const points = async () => (await client.listPoints({ pageSize: 0, pageToken: '' })).points

const baseOf = (point: snapshot.Point) => ({
  bases: [
    {
      backup: `backup-${point.pointId}`,
      pointId: point.pointId,
      disks: point.disks.map(({ disk, sizeBytes }) => ({ disk, sizeBytes })),
    },
  ],
  committedPointIds: [point.pointId],
  keptPointIds: [point.pointId],
})

async function changedBytes(disk: snapshot.PointDisk | undefined): Promise<number> {
  if (disk?.address?.$case !== 'nbdUri' || !disk.changedContext) return expect.unreachable()
  const map = `--map=${disk.changedContext}`
  const { stdout } = await run('nbdinfo', ['--json', map, disk.address.value])
  const extents: { length: number; type: number }[] = JSON.parse(stdout)
  return extents.filter(({ type }) => type & 1).reduce((sum, { length }) => sum + length, 0)
}

async function waitFor(condition: () => Promise<boolean>, ms: number): Promise<void> {
  const lateMs = monotonicMs() + ms
  while (!(await condition())) {
    if (monotonicMs() > lateMs) expect.unreachable(`the condition did not come true in ${ms} ms`)
    await sleep(100)
  }
}

describe('the snapshot service and a guest', () => {
  it('gives a point back to its run after kill -9, unchanged', async () => {
    const pointId = newPointId()
    const point = await begin({ pointId, leaseDuration: durationFromMs(60_000) })
    expect(point).toMatchObject({
      method: backup.Method.CONSOLIDATED,
      consistency: backup.Consistency.FILESYSTEM,
      vm: { name: `hosts/here/vms/${uuid}`, state: snapshot.VmState.RUNNING },
    })
    await killService()
    await startService()
    await client.holdPoint({ pointId, leaseDuration: durationFromMs(60_000) })
    await sleep(2 * leaseMs)
    await client.confirmPoint({ pointId })
    expect(await begin({ pointId })).toEqual(point)
    expect(await points()).toMatchObject([{ pointId, held: true, ours: true }])
    await release(point)
    expect(await points()).toEqual([])
  })

  it('removes a point that nobody claims after kill -9, and the guest goes on', async () => {
    await begin({ leaseDuration: durationFromMs(60_000) })
    await killService()
    const before = await guest.ticks()
    await startService()
    await waitFor(async () => (await points()).length === 0, 15_000)
    await waitFor(async () => (await guest.ticks()) > before + 2, 10_000)
    for (const place of await readdir(join(folder, 's', 'fleece'))) {
      expect(await readdir(join(folder, 's', 'fleece', place))).toEqual([])
    }
  })

  it('follows the VM from running to off and back with one chain of changes', async () => {
    const full = await begin()
    await release(full)
    await guest.sh('dd if=/dev/urandom of=/dev/vdb bs=64k count=3 oflag=direct 2>/dev/null')
    await guest.stop()

    const { vm } = await client.getVm({ name: 'live' })
    expect(vm).toMatchObject({ state: snapshot.VmState.OFF, method: backup.Method.HOST })
    const off = await begin(baseOf(full))
    expect(off).toMatchObject({ driver: 'qemu', consistency: backup.Consistency.OFF })
    expect(off.decisions.map((note) => note.decision)).toContain('MACHINE_OFF')
    expect(await changedBytes(off.disks[1])).toBe(3 * 65_536)
    expect(JSON.parse(off.vmConfigJson).commandLine).toContain(uuid)
    await client.confirmPoint({ pointId: off.pointId })
    await release(off)
    expect(await findStorageDaemons(join(folder, 's', 'run'))).toEqual([])

    guest = await Guest.start(await guestOptions())
    await guest.sh('dd if=/dev/urandom of=/dev/vdb bs=64k count=2 seek=9 oflag=direct 2>/dev/null')
    const live = await begin(baseOf(off))
    expect(live.vm?.state).toBe(snapshot.VmState.RUNNING)
    expect(await changedBytes(live.disks[1])).toBe(2 * 65_536)
    await release(live)
  }, 60_000)

  it('ends an offline point with the service, and says so to its run', async () => {
    await guest.stop()
    const point = await begin({ leaseDuration: durationFromMs(60_000) })
    await killService()
    await startService()
    const lost = await client.confirmPoint({ pointId: point.pointId }).then(
      () => 'confirmed',
      (thrown) => asBackupError(thrown)?.reason,
    )
    expect(lost).toBe('POINT_LOST')
    await release(point, snapshot.PointOutcome.DROPPED)
    guest = await Guest.start(await guestOptions())
  }, 60_000)

  it('names the VM that holds the image when a stranger does', async () => {
    await guest.stop()
    const image = join(folder, 'b.qcow2')
    const holder = spawn('qemu-io', ['-f', 'qcow2', image], { stdio: ['pipe', 'pipe', 'ignore'] })
    holder.stdin.write('read 0 512\n')
    await once(holder.stdout, 'data')
    const refused = await begin().catch((thrown) => asBackupError(thrown))
    expect(refused).toMatchObject({ reason: 'IMAGE_IN_USE', metadata: { path: image } })
    holder.stdin.end('quit\n')
    await once(holder, 'exit')
    await release(await begin(), snapshot.PointOutcome.DROPPED)
  })
})
