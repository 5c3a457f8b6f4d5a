// The qemu driver and machines that are not like the others. They have no guest: QEMU
// is started with -S and waits, which is enough for everything but freezing.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { monotonicMs, newPointId, sleep } from '@blockferry/core'
import { type BeginPoint, QemuDriver, type QemuDriverOptions, Qmp } from '@blockferry/hypervisor'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

const run = promisify(execFile)
const mebibyte = 1024 * 1024
const uuid = (last: number) => `5d4a7c1e-0000-4000-8000-00000000000${last}`
const repositoryId = 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'
const { signal } = new AbortController()

let folder: string
let driver: QemuDriver
let machines: ChildProcess[]

async function startMachine(name: string, args: string[]): Promise<string> {
  const home = join(folder, 'vms', name)
  await mkdir(home, { recursive: true })
  const socket = join(home, 'qmp.sock')
  const child = spawn(
    'qemu-system-x86_64',
    [
      ...['-S', '-name', name, '-machine', 'q35,accel=tcg', '-m', '64', '-nodefaults'],
      ...['-display', 'none', '-qmp', `unix:${socket},server=on,wait=off`, ...args],
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  )
  machines.push(child)
  while (!(await readdir(home)).includes('qmp.sock')) await sleep(20)
  return socket
}

async function disk(name: string, format: string, sizeBytes: number): Promise<string> {
  const path = join(folder, name)
  await run('qemu-img', ['create', '-q', '-f', format, path, String(sizeBytes)])
  return path
}

const virtio = (path: string, format: string, more = '') => [
  ...['-blockdev', `driver=file,node-name=f-${more},filename=${path}`],
  ...['-blockdev', `driver=${format},node-name=n-${more},file=f-${more}`],
  ...['-device', `virtio-blk-pci,drive=n-${more},id=dev-${more}`],
]

const requestOf = (change: Partial<BeginPoint> = {}): BeginPoint => ({
  pointId: newPointId(),
  vmIdentity: uuid(1),
  repositoryId,
  bases: [],
  committedPointIds: [],
  keptPointIds: [],
  quiesce: true,
  ...change,
})

const options = (): QemuDriverOptions => ({
  tag: 'abc123',
  monitors: { folder: join(folder, 'vms') },
  runFolder: join(folder, 'run'),
  fleece: { folder: join(folder, 'fleece'), freeBytesMin: mebibyte },
})

beforeEach(async () => {
  folder = await mkdtemp('/tmp/bf-odd-')
  machines = []
  driver = new QemuDriver(options())
})

afterEach(async () => {
  for (const machine of machines) {
    machine.kill('SIGKILL')
    if (machine.exitCode === null) await new Promise((resolve) => machine.once('exit', resolve))
  }
  await rm(folder, { recursive: true, force: true })
})

describe('QemuDriver', () => {
  it('refuses a VM without UUID, two with the same, one without disks or with a bad id, and says what to do', async () => {
    const image = await disk('a.raw', 'raw', mebibyte)
    await startMachine('nameless', virtio(image, 'raw', 'a'))
    await startMachine('bare', ['-uuid', uuid(2)])
    const line = await disk('line\n.raw', 'raw', mebibyte)
    await startMachine('line', [
      ...['-uuid', uuid(3), '-blockdev', `driver=file,node-name=f,filename=${line}`],
      ...['-device', 'virtio-blk-pci,drive=f'],
    ])
    for (const name of ['b', 'c']) {
      const own = await disk(`${name}.raw`, 'raw', mebibyte)
      await startMachine(name, ['-uuid', uuid(1), ...virtio(own, 'raw', name)])
    }
    const vms = await driver.inventory(signal)
    const refused = vms.map(({ name, refused }) => [name, refused?.reason])
    expect(refused.sort()).toEqual([
      ['b', 'VM_UUID_DUPLICATE'],
      ['bare', 'VM_WITHOUT_DISKS'],
      ['c', 'VM_UUID_DUPLICATE'],
      ['line', 'ARGUMENT_INVALID'],
      ['nameless', 'VM_WITHOUT_UUID'],
    ])
    expect(vms.find(({ name }) => name === 'nameless')?.refused?.message).toContain('-uuid')
    const begin = driver.beginPoint(requestOf(), signal)
    await expect(begin).rejects.toMatchObject({ reason: 'VM_UUID_DUPLICATE' })
    const unknown = driver.beginPoint(requestOf({ vmIdentity: uuid(9) }), signal)
    await expect(unknown).rejects.toMatchObject({ reason: 'VM_NOT_FOUND' })
  })

  it('takes raw, odd-sized, empty, SCSI, IDE and -drive disks, named without positions', async () => {
    const odd = await disk('odd.raw', 'raw', mebibyte + 512)
    const empty = await disk('empty.raw', 'raw', 0)
    const scsi = await disk('scsi.qcow2', 'qcow2', 2 * mebibyte)
    const ide = await disk('ide.qcow2', 'qcow2', 2 * mebibyte)
    const drive = await disk('drive.qcow2', 'qcow2', 2 * mebibyte)
    await startMachine('odd', [
      ...['-uuid', uuid(1), ...virtio(odd, 'raw', 'odd'), ...virtio(empty, 'raw', 'empty')],
      ...['-device', 'virtio-scsi-pci', '-device', 'scsi-cd,id=cd'],
      ...['-drive', `if=none,id=d1,format=qcow2,file=${scsi}`],
      ...['-device', 'scsi-hd,drive=d1,serial=SER1'],
      ...['-drive', `if=none,id=d2,format=qcow2,file=${ide}`, '-device', 'ide-hd,drive=d2,id=ide'],
      ...['-drive', `if=virtio,format=qcow2,file=${drive}`],
    ])
    const request = requestOf()
    const point = await driver.beginPoint(request, signal)
    const disks = point.disks.map(({ id, sizeBytes }) => [id, sizeBytes])
    expect(Object.fromEntries(disks)).toEqual({
      'dev-odd': mebibyte + 512,
      'dev-empty': 0,
      SER1: 2 * mebibyte,
      ide: 2 * mebibyte,
      'drive.qcow2': 2 * mebibyte,
    })
    for (const { address, sizeBytes } of point.disks) {
      if (address.kind !== 'nbd') throw new Error('not NBD')
      const { stdout } = await run('nbdinfo', ['--size', address.uri])
      expect(Number(stdout)).toBe(sizeBytes)
    }
    await driver.confirmPoint(point.pointId, signal)
    await driver.releasePoint(point.pointId, 'committed', signal)
    const sizes = point.disks.map(({ id, sizeBytes }) => ({ id, sizeBytes }))
    const base = { backupId: 'b1', pointId: point.pointId, disks: sizes }
    const resized = {
      ...base,
      disks: sizes.map((one) => ({ ...one, sizeBytes: one.sizeBytes + 1 })),
    }
    const decisionsOf = async (bases: (typeof base)[]) => {
      const next = await driver.beginPoint(
        requestOf({ bases, committedPointIds: [point.pointId] }),
        signal,
      )
      await driver.releasePoint(next.pointId, 'dropped', signal)
      return Object.fromEntries(next.disks.map(({ id, decisions }) => [id, decisions[0]?.decision]))
    }
    expect(await decisionsOf([base])).toEqual({
      'dev-odd': 'CHANGE_TRACKING_UNSUPPORTED',
      'dev-empty': 'CHANGE_TRACKING_UNSUPPORTED',
      SER1: 'CHANGED_BLOCKS_USED',
      ide: 'CHANGED_BLOCKS_USED',
      'drive.qcow2': 'CHANGED_BLOCKS_USED',
    })
    expect(new Set(Object.values(await decisionsOf([resized])))).toEqual(new Set(['DISK_RESIZED']))
  })

  it('leaves out disks that it cannot read, and says why', async () => {
    const own = await disk('own.raw', 'raw', mebibyte)
    const fast = await disk('fast.raw', 'raw', mebibyte)
    const scsi = await disk('scsi.raw', 'raw', mebibyte)
    const shared = join(folder, 'shared')
    await mkdir(shared)
    const [thread, ...others] = [
      ...['iothread,id=io0', '-blockdev', `driver=file,node-name=n1,filename=${fast}`],
      ...['-device', 'virtio-blk-pci,drive=n1,id=fast,iothread=io0'],
      ...['-blockdev', `driver=file,node-name=n2,filename=${scsi}`],
      ...['-device', 'virtio-scsi-pci,id=bus,iothread=io0'],
      ...['-device', 'scsi-hd,bus=bus.0,drive=n2,id=scsi'],
      ...['-drive', `if=none,id=folder,file=fat:rw:${shared},format=raw`],
      ...['-device', 'ide-hd,drive=folder,id=fat'],
    ]
    const args = ['-uuid', uuid(1), ...virtio(own, 'raw', 'own'), '-object', thread ?? '']
    await startMachine('a', [...args, ...others])
    const [vm] = await driver.inventory(signal)
    expect(vm?.disks.map(({ id }) => id)).toEqual(['dev-own'])
    const uncovered = vm?.uncovered.map(({ id, reason }) => [id, reason])
    expect(uncovered?.sort()).toEqual([
      ['fast', 'DISK_NOT_COVERED'],
      ['fat', 'DISK_FORMAT_UNSUPPORTED'],
      ['scsi', 'DISK_NOT_COVERED'],
    ])
    const point = await driver.beginPoint(requestOf(), signal)
    expect(point.disks.map(({ id }) => id)).toEqual(['dev-own'])
    const decisions = point.decisions.map(({ decision }) => decision)
    expect(decisions.filter((one) => one === 'DISK_NOT_COVERED')).toHaveLength(3)
    await driver.releasePoint(point.pointId, 'dropped', signal)
  })

  it('removes bitmaps of this repository only, and only those that nothing needs', async () => {
    const image = await disk('a.qcow2', 'qcow2', mebibyte)
    const socket = await startMachine('a', ['-uuid', uuid(1), ...virtio(image, 'qcow2', 'a')])
    const add = async (name: string) => {
      await using qmp = await Qmp.connect(socket)
      await qmp.execute('block-dirty-bitmap-add', { node: 'n-a', name, persistent: true })
    }
    const names = async () => {
      await using qmp = await Qmp.connect(socket)
      type Node = { 'dirty-bitmaps'?: { name: string }[] }
      const nodes = await qmp.execute<Node[]>('query-named-block-nodes', { flat: true })
      return nodes.flatMap((node) => node['dirty-bitmaps'] ?? []).map(({ name }) => name)
    }
    const own = repositoryId.slice(0, 16)
    const foreign = ['somebody', 'blockferry.cccccccccccccccc.000000000001']
    for (const name of foreign) await add(name)
    const [lost, old, last] = ['000000000002', '000000000003', '000000000004']
    for (const pointId of [lost, old, last]) await add(`blockferry.${own}.${pointId}`)
    const request = requestOf({ committedPointIds: [old, last], keptPointIds: [last] })
    await driver.beginPoint(request, signal)
    await driver.releasePoint(request.pointId, 'dropped', signal)
    const kept = [old, last].map((pointId) => `blockferry.${own}.${pointId}`)
    expect((await names()).sort()).toEqual([...foreign, ...kept].sort())
    const next = { ...request, pointId: newPointId() }
    await driver.beginPoint(next, signal)
    await driver.releasePoint(next.pointId, 'committed', signal)
    const mine = [last, next.pointId].map((pointId) => `blockferry.${own}.${pointId}`)
    expect((await names()).sort()).toEqual([...foreign, ...mine].sort())
  })

  it('leaves the NBD server of another program alone, and takes over one of its own', async () => {
    const image = await disk('a.qcow2', 'qcow2', mebibyte)
    const socket = await startMachine('a', ['-uuid', uuid(1), ...virtio(image, 'qcow2', 'a')])
    const serve = async (path: string) => {
      await using qmp = await Qmp.connect(socket)
      await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path } } })
    }
    await serve(join(folder, 'foreign.sock'))
    const begin = driver.beginPoint(requestOf(), signal)
    await expect(begin).rejects.toMatchObject({ reason: 'VM_BUSY' })
    {
      await using qmp = await Qmp.connect(socket)
      await qmp.execute('nbd-server-stop')
    }
    await serve(join(folder, 'run', 'bf.abc123.000000000001.sock'))
    const point = await driver.beginPoint(requestOf(), signal)
    await driver.releasePoint(point.pointId, 'dropped', signal)
  })

  it('says that another program holds the monitor, in time and by name', async () => {
    const image = await disk('a.qcow2', 'qcow2', mebibyte)
    const socket = await startMachine('a', ['-uuid', uuid(1), ...virtio(image, 'qcow2', 'a')])
    const other = connect(socket)
    await new Promise((resolve) => other.once('data', resolve))
    const startMs = monotonicMs()
    const [vm] = await driver.inventory(signal)
    expect(monotonicMs() - startMs).toBeLessThan(7_000)
    expect(vm).toMatchObject({ identity: uuid(1), refused: { reason: 'HOST_UNREACHABLE' } })
    expect(vm?.refused?.message).toContain('another program holds the monitor')
    other.destroy()
    expect((await driver.inventory(signal))[0]?.refused).toBeNull()
  })

  it('lets a VM go on by the same guard when its point cannot be taken, and leaves nothing', async () => {
    const image = await disk('a.qcow2', 'qcow2', 2 * mebibyte)
    const beside = join(folder, 'beside.sock')
    const second = ['-qmp', `unix:${beside},server=on,wait=off`]
    await startMachine('one', ['-uuid', uuid(1), ...virtio(image, 'qcow2', 'a'), ...second])
    await using qmp = await Qmp.connect(beside)
    await qmp.execute('cont')
    const { pointId } = requestOf()
    // The point's bitmap is there already, so its transaction fails, while the VM is paused.
    const name = `blockferry.${repositoryId.slice(0, 16)}.${pointId}`
    await qmp.execute('block-dirty-bitmap-add', { node: 'n-a', name })
    const steps: string[] = []
    const watched = new QemuDriver({ ...options(), onHoldStep: (step) => steps.push(step) })
    const request = requestOf({ pointId, committedPointIds: [pointId] })
    await expect(watched.beginPoint(request, signal)).rejects.toThrow(name)
    expect(steps).toEqual(['connect', 'pause', 'point', 'resume'])
    expect(await qmp.execute('query-status')).toMatchObject({ status: 'running' })
    expect(await watched.findPoints(signal)).toEqual([])
    expect(await readdir(join(folder, 'fleece'))).toEqual([])
    expect(await readdir(join(folder, 'run'))).toEqual([])
  })

  it('says when there is no room for a fleece store, and leaves nothing', async () => {
    const image = await disk('a.qcow2', 'qcow2', mebibyte)
    await startMachine('a', ['-uuid', uuid(1), ...virtio(image, 'qcow2', 'a')])
    const tight = new QemuDriver({
      tag: 'abc123',
      monitors: { folder: join(folder, 'vms') },
      runFolder: join(folder, 'run'),
      fleece: { folder: join(folder, 'fleece'), freeBytesMin: Number.MAX_SAFE_INTEGER },
    })
    const begin = tight.beginPoint(requestOf(), signal)
    await expect(begin).rejects.toMatchObject({ reason: 'FLEECE_FULL' })
    expect(await tight.findPoints(signal)).toEqual([])
  })
})
