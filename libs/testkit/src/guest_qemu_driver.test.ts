// The qemu driver against a real guest: two disks, one with a file system on which
// the guest writes all the time, one without for exact block counts.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { monotonicMs, newPointId, sleep } from '@blockferry/core'
import {
  type BaseCandidate,
  type BeginPoint,
  type Point,
  QemuDriver,
  type QemuDriverOptions,
  Qmp,
} from '@blockferry/hypervisor'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { buildGuest, Guest, type GuestFiles, type GuestOptions } from './guest.ts'
import { askAndNeverRead } from './stalled_reader.ts'

// Emulated guests on a busy machine are slow; what must be quick is asserted below.
vi.setConfig({ testTimeout: 120_000 })

const run = promisify(execFile)
const mebibyte = 1024 * 1024
const blockBytes = 65_536
const uuid = '5d4a7c1e-0000-4000-8000-00000000000a'
const repositoryId = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'
const { signal } = new AbortController()

let folder: string
let files: GuestFiles
let guest: Guest
let driver: QemuDriver

const optionsOf = (change: Partial<QemuDriverOptions> = {}): QemuDriverOptions => ({
  tag: 'abc123',
  monitors: { folder: join(folder, 'vms') },
  runFolder: join(folder, 'run'),
  fleece: { folder: join(folder, 'fleece'), freeBytesMin: mebibyte },
  ...change,
})

const guestOptions = (): GuestOptions => ({
  files,
  folder: join(folder, 'vms/one'),
  name: 'one',
  uuid,
  disks: [
    { path: join(folder, 'a.qcow2'), format: 'qcow2', sizeBytes: 128 * mebibyte },
    {
      ...{ path: join(folder, 'b.qcow2'), format: 'qcow2', sizeBytes: 64 * mebibyte },
      filesystem: false,
      pluggable: true,
    },
  ],
  append: 'writer=1',
})

const requestOf = (change: Partial<BeginPoint> = {}): BeginPoint => ({
  pointId: newPointId(),
  vmIdentity: uuid,
  repositoryId,
  bases: [],
  committedPointIds: [],
  keptPointIds: [],
  quiesce: true,
  ...change,
})

/** A backup as the bitmap rule sees it: its images, kept for comparing. */
interface Held {
  candidate: BaseCandidate
  images: Map<string, string>
}

async function readWhole(point: Point, time = 'first'): Promise<Map<string, string>> {
  const images = new Map<string, string>()
  for (const disk of point.disks) {
    if (disk.address.kind !== 'nbd') throw new Error('not NBD')
    const path = join(folder, `${point.pointId}-${disk.id}-${time}`)
    await run('nbdcopy', [disk.address.uri, path])
    images.set(disk.id, path)
  }
  return images
}

interface MapEntry {
  offset: number
  length: number
  type: number
}

async function changedExtents(point: Point, id: string): Promise<MapEntry[]> {
  const disk = point.disks.find((one) => one.id === id)
  if (disk?.address.kind !== 'nbd') throw new Error('not NBD')
  const map = `--map=${disk.changedContext}`
  const { stdout } = await run('nbdinfo', ['--json', map, disk.address.uri])
  return (JSON.parse(stdout) as MapEntry[]).filter(({ type }) => (type & 1) === 1)
}

const digestOf = async (path: string) =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex')

/** The base's image with the changed extents of the point laid over it is the point. */
async function expectRebuilt(point: Point, whole: Map<string, string>, base: Held): Promise<void> {
  for (const [id, path] of whole) {
    const rebuilt = `${path}-rebuilt`
    await run('cp', ['--sparse=always', base.images.get(id) ?? '', rebuilt])
    const source = await open(path)
    const target = await open(rebuilt, 'r+')
    for (const { offset, length } of await changedExtents(point, id)) {
      const bytes = Buffer.alloc(length)
      await source.read(bytes, 0, length, offset)
      await target.write(bytes, 0, length, offset)
    }
    await source.close()
    await target.close()
    expect(await digestOf(rebuilt), `disk ${id}`).toBe(await digestOf(path))
    await rm(rebuilt)
  }
}

const bytesOf = (extents: MapEntry[]) => extents.reduce((sum, { length }) => sum + length, 0)

/** Takes, reads, confirms and commits a point. */
async function backUp(change: Partial<BeginPoint> = {}): Promise<Held & { point: Point }> {
  const request = requestOf(change)
  const point = await driver.beginPoint(request, signal)
  const images = await readWhole(point)
  await driver.confirmPoint(point.pointId, signal)
  const disks = point.disks.map(({ id, sizeBytes }) => ({ id, sizeBytes }))
  const candidate = { backupId: `backup-${point.pointId}`, pointId: point.pointId, disks }
  return { candidate, images, point }
}

const committed = (...held: Held[]): Partial<BeginPoint> => ({
  bases: held.map(({ candidate }) => candidate),
  committedPointIds: held.map(({ candidate }) => candidate.pointId),
  keptPointIds: held.map(({ candidate }) => candidate.pointId),
})

async function ask<T>(command: string, args: Record<string, unknown> = {}): Promise<T> {
  await using qmp = await Qmp.connect(guest.qmpPath)
  return await qmp.execute<T>(command, args)
}

/** The guest writes, nothing of a point is in QEMU, no file of ours is left. */
async function expectUntouched(): Promise<void> {
  await expectUntouchedByPoint()
  expect(await readdir(join(folder, 'fleece'))).toEqual([])
  expect(await readdir(join(folder, 'run'))).toEqual([])
  expect(await driver.findPoints(signal)).toEqual([])
}

async function expectUntouchedByPoint(): Promise<void> {
  const nodes = await ask<{ 'node-name': string }[]>('query-named-block-nodes', { flat: true })
  expect(nodes.map((node) => node['node-name']).filter((name) => name.startsWith('bf.'))).toEqual(
    [],
  )
  expect(await ask('query-block-exports')).toEqual([])
  expect(await ask('query-status')).toMatchObject({ status: 'running' })
  await expectWriting()
}

async function expectWriting(withinMs = 10_000): Promise<void> {
  const startMs = monotonicMs()
  const before = await guest.ticks()
  while ((await guest.ticks()) <= before + 1) {
    if (monotonicMs() - startMs > withinMs) throw new Error(`no write in ${withinMs} ms`)
    await sleep(50)
  }
}

/** Watches the guest's writer until the returned function is called: its longest pause. */
function watchWriting(): () => Promise<number> {
  let watching = true
  let longestMs = 0
  const watch = async () => {
    let last = await guest.ticks()
    let lastMs = monotonicMs()
    while (watching) {
      await sleep(50)
      longestMs = Math.max(longestMs, monotonicMs() - lastMs)
      const now = await guest.ticks()
      if (now !== last) [last, lastMs] = [now, monotonicMs()]
    }
    return longestMs
  }
  const watched = watch()
  return () => {
    watching = false
    return watched
  }
}

async function ourBitmaps(): Promise<string[]> {
  type Node = { 'dirty-bitmaps'?: { name?: string }[] }
  const nodes = await ask<Node[]>('query-named-block-nodes', { flat: true })
  const names = nodes.flatMap((node) => node['dirty-bitmaps'] ?? []).map(({ name }) => name ?? '')
  return names.filter((name) => name.startsWith('blockferry')).sort()
}

const writeBlocks = (count: number, first: number) =>
  guest.sh(
    `dd if=/dev/urandom of=/dev/vdb bs=64k count=${count} seek=${first} oflag=direct 2>/dev/null`,
  )

/** The point goes in time and the guest goes on, though a reader never takes what it asked for. */
async function releaseUnderStalledReader(
  withinMs: number,
  before: () => Promise<void>,
  writesWithinMs = 10_000,
): Promise<void> {
  await guest.sh('dd if=/dev/urandom of=/dev/vdb bs=1M count=16 oflag=direct')
  const point = await driver.beginPoint(requestOf(), signal)
  const reader = await askAndNeverRead(point, 'disk1', 16)
  try {
    await before()
    const startMs = monotonicMs()
    await driver.releasePoint(point.pointId, 'dropped', signal)
    expect(monotonicMs() - startMs).toBeLessThan(withinMs)
    await expectWriting(writesWithinMs)
    await expectUntouched()
  } finally {
    reader.destroy()
  }
}

beforeAll(async () => {
  folder = await mkdtemp('/tmp/bf-qemu-')
  files = await buildGuest()
  guest = await Guest.start(guestOptions())
  console.log(`booted in ${Math.round(guest.bootMs)} ms`)
}, 120_000)

afterAll(async () => {
  await guest?.kill()
  await rm(folder, { recursive: true, force: true })
})

describe('QemuDriver with a running guest', () => {
  beforeAll(() => {
    driver = new QemuDriver(optionsOf())
  })
  afterEach(async () => {
    const points = await driver.findPoints(signal)
    for (const { pointId, ours } of points) {
      if (ours) await driver.releasePoint(pointId, 'dropped', signal)
    }
  })

  it('lists the VM with its disks by serial', async () => {
    const [vm, ...others] = await driver.inventory(signal)
    expect(others).toEqual([])
    expect(vm).toMatchObject({ identity: uuid, name: 'one', state: 'running', refused: null })
    expect(vm?.disks.map(({ id, format, sizeBytes }) => [id, format, sizeBytes])).toEqual([
      ['disk0', 'qcow2', 128 * mebibyte],
      ['disk1', 'qcow2', 64 * mebibyte],
    ])
    expect(vm?.config.commandLine).toContain(uuid)
    expect(vm?.config.diskFiles).toEqual({
      disk0: join(folder, 'a.qcow2'),
      disk1: join(folder, 'b.qcow2'),
    })
  })

  it('shows one instant, then exactly what changed since a full and since an incremental', async () => {
    await writeBlocks(8, 0)
    const full = await backUp()
    console.log(`frozen ${full.point.frozenMs} ms, paused ${full.point.pausedMs} ms`)
    expect(full.point.consistency).toBe('filesystem')
    expect(full.point.pausedMs).toBeGreaterThan(0)
    expect(full.point.pausedMs).toBeLessThan(50)
    expect(full.point.disks.map(({ changedContext }) => changedContext)).toEqual([null, null])
    await guest.sh('dd if=/dev/urandom of=/data/0/during bs=1M count=4 2>/dev/null; sync')
    const again = await readWhole(full.point, 'again')
    for (const [id, path] of full.images) {
      expect(await digestOf(again.get(id) ?? ''), id).toBe(await digestOf(path))
    }
    await driver.releasePoint(full.point.pointId, 'committed', signal)
    await expectUntouched()

    await writeBlocks(5, 100)
    const incremental = await backUp(committed(full))
    expect(bytesOf(await changedExtents(incremental.point, 'disk1'))).toBe(5 * blockBytes)
    await expectRebuilt(incremental.point, incremental.images, full)
    await driver.releasePoint(incremental.point.pointId, 'committed', signal)

    await writeBlocks(3, 200)
    const failed = await driver.beginPoint(requestOf(committed(incremental, full)), signal)
    await driver.releasePoint(failed.pointId, 'dropped', signal)
    await expectUntouched()

    const next = await backUp(committed(incremental, full))
    expect(bytesOf(await changedExtents(next.point, 'disk1'))).toBe(3 * blockBytes)
    await expectRebuilt(next.point, next.images, incremental)
    await driver.releasePoint(next.point.pointId, 'dropped', signal)

    const differential = await backUp({ ...committed(full), ...keptOf(full, incremental) })
    expect(bytesOf(await changedExtents(differential.point, 'disk1'))).toBe(8 * blockBytes)
    await expectRebuilt(differential.point, differential.images, full)
    await driver.releasePoint(differential.point.pointId, 'committed', signal)
    expect(await ourBitmaps()).toHaveLength(6)
  })

  it('returns the same point for the same id and VM_BUSY for every other', async () => {
    const request = requestOf()
    const twice = [driver.beginPoint(request, signal), driver.beginPoint(request, signal)]
    const [point, same] = (await Promise.all(twice)) as [Point, Point]
    expect(same).toEqual(point)
    expect(await new QemuDriver(optionsOf()).beginPoint(request, signal)).toEqual(point)
    await expect(driver.beginPoint(requestOf(), signal)).rejects.toMatchObject({
      reason: 'VM_BUSY',
      metadata: { point: point.pointId },
    })
    const other = new QemuDriver(optionsOf({ tag: 'ffffff', runFolder: join(folder, 'other') }))
    await expect(other.beginPoint(requestOf(), signal)).rejects.toMatchObject({
      reason: 'VM_BUSY',
      metadata: { owner: 'abc123' },
    })
    expect(await other.findPoints(signal)).toMatchObject([
      { pointId: point.pointId, ours: false, owner: 'abc123', vmIdentity: uuid },
    ])
    await other.releasePoint(point.pointId, 'dropped', signal)
    await driver.confirmPoint(point.pointId, signal)
    await new QemuDriver(optionsOf()).releasePoint(point.pointId, 'dropped', signal)
    await expectUntouched()
  })

  it('lists no point that was released, whoever asks the monitor meanwhile', async () => {
    const { pointId } = await driver.beginPoint(requestOf(), signal)
    expect(await driver.findPoints(signal)).toMatchObject([{ pointId, ours: true }])
    await driver.releasePoint(pointId, 'dropped', signal)
    const lists: Promise<unknown>[] = []
    for (let count = 0; count < 20; count++) {
      lists.push(driver.findPoints(signal))
      await sleep(5)
    }
    for (const list of lists) expect(await list).toEqual([])
  })

  it.each([
    ['SIGKILL', 'freeze'],
    ['SIGKILL', 'pause'],
    ['SIGKILL', 'point'],
    ['SIGKILL', 'resume'],
    ['SIGKILL', 'thaw'],
    ['SIGSTOP', 'freeze'],
    ['SIGSTOP', 'point'],
  ] as const)('lets the guest go on after %s of the guard in step %s', async (kill, at) => {
    const longestGapMs = watchWriting()
    const onHoldStep = (step: string, guardPid: number) => {
      if (step === at) process.kill(guardPid, kill)
    }
    const faulty = new QemuDriver(optionsOf({ onHoldStep }))
    const request = requestOf()
    // A kill that comes after the guard's last step finds its work done.
    const failure = await faulty.beginPoint(request, signal).catch((thrown) => thrown)
    if (failure instanceof Error) expect(failure).toMatchObject({ reason: 'GUARD_FAILED' })
    else await faulty.releasePoint(request.pointId, 'dropped', signal)
    await expectUntouched()
    expect(await longestGapMs()).toBeLessThan(10_000)
    expect(await guest.sh('tail -n 1 /run/hook.log')).toContain('thaw')
  })

  it('begins anew after both the guard and its starter were killed', async () => {
    const request = requestOf()
    const script = `
      import { QemuDriver } from '@blockferry/hypervisor'
      const onHoldStep = (step, pid) => {
        if (step !== 'resume') return
        process.kill(pid, 'SIGKILL')
        process.kill(process.pid, 'SIGKILL')
      }
      const driver = new QemuDriver({ ...${JSON.stringify(optionsOf())}, onHoldStep })
      await driver.beginPoint(${JSON.stringify(request)}, new AbortController().signal)`
    const program = ['--conditions=@blockferry/source', '--input-type=module', '-e', script]
    const child = run(process.execPath, program, { cwd: import.meta.dirname })
    await expect(child).rejects.toMatchObject({ signal: 'SIGKILL' })
    const [left] = await driver.findPoints(signal)
    expect(left).toMatchObject({ ours: true, vmIdentity: uuid, pointId: request.pointId })
    const other = driver.beginPoint(requestOf(), signal)
    await expect(other).rejects.toMatchObject({ reason: 'VM_BUSY' })
    await driver.beginPoint(request, signal)
    await driver.confirmPoint(request.pointId, signal)
    await driver.releasePoint(request.pointId, 'dropped', signal)
    await expectUntouched()
  })

  it('fails in time when a freeze hook hangs, and thaws when it returns', async () => {
    await guest.sh('echo hang 9 >/run/hook-mode')
    const longestGapMs = watchWriting()
    const startMs = monotonicMs()
    const begin = driver.beginPoint(requestOf(), signal)
    await expect(begin).rejects.toMatchObject({ reason: 'QUIESCE_FAILED' })
    expect(monotonicMs() - startMs).toBeLessThan(9_000)
    await expectUntouchedByPoint()
    await guest.sh('echo ok >/run/hook-mode; while pgrep -f "^sleep 9"; do sleep 0.2; done')
    await expectWriting(10_000)
    expect(await longestGapMs()).toBeLessThan(10_000)
    // The guard keeps the agent until its late thaw is answered; until then nothing is frozen.
    const deadlineMs = monotonicMs() + 30_000
    let told: string[] = []
    while (!told.includes('QUIESCED') && monotonicMs() < deadlineMs) {
      const point = await driver.beginPoint(requestOf(), signal)
      told = point.decisions.map(({ decision }) => decision)
      await driver.releasePoint(point.pointId, 'dropped', signal)
    }
    expect(told).toEqual(['QUIESCED'])
    await expectUntouched()
  })

  it('fails when a freeze hook fails, and goes on without an agent that is silent', async () => {
    await guest.sh('echo fail >/run/hook-mode')
    const begin = driver.beginPoint(requestOf(), signal)
    await expect(begin).rejects.toMatchObject({ reason: 'QUIESCE_FAILED' })
    await guest.sh('echo ok >/run/hook-mode; kill -STOP $(cat /run/qga.pid)')
    const point = await driver.beginPoint(requestOf(), signal)
    expect(point.consistency).toBe('crash')
    expect(point.decisions.map(({ decision }) => decision)).toEqual(['QUIESCE_SKIPPED'])
    await driver.releasePoint(point.pointId, 'dropped', signal)
    await guest.sh('kill -CONT $(cat /run/qga.pid)')
    await expectUntouched()
  })

  it('leaves a VM paused that its user paused', async () => {
    await ask('stop')
    const point = await driver.beginPoint(requestOf(), signal)
    expect(point).toMatchObject({ pausedMs: 0, frozenMs: 0, consistency: 'crash' })
    await driver.releasePoint(point.pointId, 'dropped', signal)
    expect(await ask('query-status')).toMatchObject({ status: 'paused' })
    await ask('cont')
    await expectUntouched()
  })

  it('breaks the point and not the guest when the fleece store is full', async () => {
    const socket = join(folder, 'store.sock')
    const full = join(folder, 'full')
    const error = ['pwrite', 'zero'].flatMap((call) => [
      ...[`error-${call}=ENOSPC`, `error-${call}-rate=100%`, `error-${call}-file=${full}`],
    ])
    const store = execFile('nbdkit', [
      ...['-f', '-U', socket, '--filter=error', 'memory', '128M', ...error],
    ])
    try {
      while (!(await readdir(folder)).includes('store.sock')) await sleep(20)
      const remote = new QemuDriver(optionsOf({ fleece: { nbdSocket: socket } }))
      const point = await remote.beginPoint(requestOf(), signal)
      await remote.confirmPoint(point.pointId, signal)
      await (await open(full, 'w')).close()
      await guest.sh('dd if=/dev/urandom of=/dev/vdb bs=64k count=1 seek=500 oflag=direct')
      await expectWriting()
      await expect(remote.confirmPoint(point.pointId, signal)).rejects.toMatchObject({
        reason: 'POINT_BROKEN',
      })
      await remote.releasePoint(point.pointId, 'dropped', signal)
      await expectUntouched()
    } finally {
      store.kill()
    }
  })

  it('breaks the point and lets the guest go on when the fleece store hangs', async () => {
    const socket = join(folder, 'slow.sock')
    const store = execFile('nbdkit', ['-f', '-U', socket, 'memory', '128M'])
    try {
      while (!(await readdir(folder)).includes('slow.sock')) await sleep(20)
      const remote = new QemuDriver(optionsOf({ fleece: { nbdSocket: socket } }))
      const point = await remote.beginPoint(requestOf(), signal)
      store.kill('SIGSTOP')
      const startMs = monotonicMs()
      await guest.sh('dd if=/dev/urandom of=/dev/vdb bs=64k count=1 oflag=direct')
      await expectWriting()
      const confirm = remote.confirmPoint(point.pointId, signal)
      await expect(confirm).rejects.toMatchObject({ reason: 'POINT_BROKEN' })
      expect(monotonicMs() - startMs).toBeLessThan(10_000)
      await remote.releasePoint(point.pointId, 'dropped', signal)
      await expectUntouched()
    } finally {
      store.kill('SIGKILL')
    }
  })

  it('takes a point away from a reader that asked for blocks and does not take them', async () => {
    await releaseUnderStalledReader(8_000, async () => {})
  })

  it('takes a point away that an earlier release could not', async () => {
    await releaseUnderStalledReader(8_000, async () => {
      // What a release that was killed leaves behind: QEMU waits for the reader.
      for (const { id } of await ask<{ id: string }[]>('query-block-exports')) {
        await ask('block-export-del', { id, mode: 'hard' })
      }
    })
  })

  it('takes a point away whose reader hangs QEMU as a whole', async () => {
    const reset = async () => {
      await ask('set-action', { reboot: 'reset' })
      // QEMU waits for the requests under way before the reset, and answers nothing meanwhile.
      await ask('system_reset').catch(() => {})
    }
    // A guest that was reset boots first.
    await releaseUnderStalledReader(20_000, reset, 60_000)
  })

  it('gives up in time on a QEMU that hangs', async () => {
    guest.signal('SIGSTOP')
    const startMs = monotonicMs()
    try {
      const begin = driver.beginPoint(requestOf(), signal)
      await expect(begin).rejects.toMatchObject({ reason: 'HOST_UNREACHABLE' })
      expect(monotonicMs() - startMs).toBeLessThan(8_000)
    } finally {
      guest.signal('SIGCONT')
    }
    await expectUntouched()
  })

  it('keeps showing the instant when the guest is reset', async () => {
    await ask('set-action', { reboot: 'reset' })
    const point = await driver.beginPoint(requestOf(), signal)
    const before = await readWhole(point)
    await ask('system_reset')
    await expectWriting(60_000)
    const after = await readWhole(point, 'after')
    for (const [id, path] of before) {
      expect(await digestOf(after.get(id) ?? ''), id).toBe(await digestOf(path))
    }
    await driver.confirmPoint(point.pointId, signal)
    await driver.releasePoint(point.pointId, 'dropped', signal)
    await expectUntouched()
  })

  it('refuses to confirm a point of which a disk was unplugged', async () => {
    const point = await driver.beginPoint(requestOf(), signal)
    await ask('device_del', { id: 'vdb' })
    const unplugged = async () => (await ask<unknown[]>('query-block')).length < 2
    while (!(await unplugged())) await sleep(100)
    await expect(driver.confirmPoint(point.pointId, signal)).rejects.toMatchObject({
      reason: 'DISK_REMOVED',
      metadata: { disk: 'disk1' },
    })
    await driver.releasePoint(point.pointId, 'dropped', signal)
    await expectUntouched()
  })

  it('reads everything after QEMU was killed, and says why', async () => {
    const full = await backUp()
    await driver.releasePoint(full.point.pointId, 'committed', signal)
    const lost = await driver.beginPoint(requestOf(committed(full)), signal)
    await guest.kill()
    await expect(driver.confirmPoint(lost.pointId, signal)).rejects.toMatchObject({
      reason: 'VM_POWERED_OFF',
    })
    await driver.releasePoint(lost.pointId, 'dropped', signal)
    expect(await driver.findPoints(signal)).toEqual([])
    guest = await Guest.start(guestOptions())
    const next = await driver.beginPoint(requestOf(committed(full)), signal)
    for (const disk of next.disks) {
      expect(disk.changedContext).toBeNull()
      const decisions = disk.decisions.map(({ decision }) => decision)
      expect(decisions).toEqual([disk.id === 'disk0' ? 'CHANGE_TRACKING_LOST' : 'DISK_ADDED'])
    }
    expect(await ourBitmaps()).toHaveLength(2)
    await driver.releasePoint(next.pointId, 'dropped', signal)
    await expectUntouched()
  })
})

const keptOf = (...held: Held[]) => ({
  committedPointIds: held.map(({ candidate }) => candidate.pointId),
  keptPointIds: held.map(({ candidate }) => candidate.pointId),
})
