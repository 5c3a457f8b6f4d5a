import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newPointId, sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { BaseCandidate, BeginPoint, Point, PointDisk, Vm } from '../driver.ts'
import { bitmapName } from '../qemu/bitmaps.ts'
import { restoreMarkPath } from '../restore_mark.ts'
import { findStorageDaemons } from '../storage_daemon.ts'
import { QemuOffDriver } from './qemu_off_driver.ts'

const repositoryId = 'f00dfeed'.repeat(4)
const identity = '11111111-2222-3333-4444-555555555555'
const mebibyte = 2 ** 20
const signal = () => new AbortController().signal

let home: string
let runFolder: string
let driver: QemuOffDriver
let known: Vm

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'bf-off-'))
  runFolder = join(home, 'run')
  const disks = ['a', 'b'].map((id) => {
    const location = join(home, `${id}.qcow2`)
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', location, '16M'])
    return { id, format: 'qcow2', sizeBytes: 16 * mebibyte, location }
  })
  const config = { driver: 'qemu', commandLine: ['qemu-system-x86_64'], diskFiles: {} } as const
  const about = { identity, name: 'vm', state: 'running', uncovered: [], refused: null } as const
  known = { ...about, uncovered: [], disks, config: { ...config, commandLine: ['qemu'] } }
  driver = newDriver()
})

afterEach(async () => {
  vi.unstubAllEnvs()
  await driver[Symbol.asyncDispose]()
  expect(await findStorageDaemons(runFolder)).toEqual([])
  await rm(home, { recursive: true })
})

const newDriver = () => new QemuOffDriver({ runFolder, tag: 'abcdef', known: () => [known] })

function request(more: Partial<BeginPoint> = {}): BeginPoint {
  return {
    pointId: newPointId(),
    vmIdentity: identity,
    repositoryId,
    bases: [],
    committedPointIds: [],
    keptPointIds: [],
    quiesce: true,
    ...more,
  }
}

const path = (id: string) => join(home, `${id}.qcow2`)
const write = (id: string, pattern: string, offset: string, size: string) =>
  execFileSync(
    'qemu-io',
    ['-f', 'qcow2', '-c', `write -P ${pattern} ${offset} ${size}`, path(id)],
    {
      stdio: 'pipe',
    },
  )

const uriOf = (disk: PointDisk | undefined) =>
  disk?.address.kind === 'nbd' ? disk.address.uri : expect.unreachable('no NBD address')

const mapOf = (uri: string, context: string): Extent[] =>
  JSON.parse(execFileSync('nbdinfo', ['--json', `--map=${context}`, uri]).toString())

interface Extent {
  offset: number
  length: number
  type: number
}

function changed(disk: PointDisk | undefined): [number, number][] {
  return mapOf(uriOf(disk), disk?.changedContext ?? '')
    .filter((extent) => extent.type & 1)
    .map(({ offset, length }) => [offset / mebibyte, length / mebibyte])
}

function bitmapNames(id: string): string[] {
  const info = JSON.parse(execFileSync('qemu-img', ['info', '--output=json', path(id)]).toString())
  const bitmaps = info['format-specific'].data.bitmaps ?? []
  return bitmaps.map((bitmap: { name: string }) => bitmap.name)
}

const asBase = (point: Point, backupId: string): BaseCandidate => ({
  backupId,
  pointId: point.pointId,
  disks: point.disks.map(({ id, sizeBytes }) => ({ id, sizeBytes })),
})

async function failure(work: Promise<unknown>): Promise<BackupError> {
  const thrown = await work.then(
    () => null,
    (error: unknown) => error,
  )
  expect(thrown).toBeInstanceOf(BackupError)
  return thrown as BackupError
}

/** Somebody who holds QEMU's lock on an image; gone at the end of the block, also of a failed test. */
async function holdImage(format: string, path: string): Promise<AsyncDisposable> {
  const holder = spawn('qemu-io', ['-f', format, path], { stdio: ['pipe', 'pipe', 'ignore'] })
  holder.stdin.write('write 0 512\n')
  await once(holder.stdout, 'data')
  return {
    async [Symbol.asyncDispose]() {
      if (holder.exitCode === null) holder.kill('SIGKILL')
      await once(holder, 'exit')
    },
  }
}

describe('point of a QEMU machine that is off', () => {
  it('tells what changed since the base, with both disks at one instant', async () => {
    write('a', '1', '0', '3M')
    const full = await driver.beginPoint(request(), signal())
    expect(full).toMatchObject({ consistency: 'off', vm: { state: 'off', config: known.config } })
    expect(full.disks.map((disk) => disk.changedContext)).toEqual([null, null])
    await driver.confirmPoint(full.pointId, signal())
    await driver.releasePoint(full.pointId, 'committed')

    write('a', '2', '5M', '1M')
    const bases = [asBase(full, 'backup-1')]
    const committedPointIds = [full.pointId]
    const next = await driver.beginPoint(request({ bases, committedPointIds }), signal())
    expect(changed(next.disks[0])).toEqual([[5, 1]])
    expect(changed(next.disks[1])).toEqual([])
    expect(next.disks[0]?.baseBackupId).toBe('backup-1')
    const copy = join(home, 'copy.raw')
    execFileSync('nbdcopy', [uriOf(next.disks[0]), copy])
    const bytes = await readFile(copy)
    expect([bytes[0], bytes[3 * mebibyte], bytes[5 * mebibyte]]).toEqual([1, 0, 2])
    await driver.confirmPoint(next.pointId, signal())
    await driver.releasePoint(next.pointId, 'committed')
  })

  it('keeps the bitmaps of the new and the kept points only', async () => {
    const points: Point[] = []
    for (let round = 0; round < 3; round++) {
      const committedPointIds = points.map((point) => point.pointId)
      const keptPointIds = committedPointIds.slice(0, 1)
      const bases = points.map((point) => asBase(point, point.pointId)).reverse()
      const about = request({ bases, committedPointIds, keptPointIds })
      const point = await driver.beginPoint(about, signal())
      await driver.releasePoint(point.pointId, 'committed')
      points.push(point)
    }
    const wanted = [points[0], points[2]].map((point) =>
      bitmapName(repositoryId, point?.pointId ?? ''),
    )
    expect(bitmapNames('a').sort()).toEqual(wanted.sort())
    expect(bitmapNames('b').sort()).toEqual(wanted.sort())
  })

  it('drops the bitmap of a point whose backup failed and can use the base again', async () => {
    const full = await driver.beginPoint(request(), signal())
    await driver.releasePoint(full.pointId, 'committed')
    write('b', '3', '2M', '1M')
    const about = { bases: [asBase(full, 'backup-1')], committedPointIds: [full.pointId] }
    const failed = await driver.beginPoint(request(about), signal())
    await driver.releasePoint(failed.pointId, 'dropped')
    expect(bitmapNames('b')).toEqual([bitmapName(repositoryId, full.pointId)])
    const again = await driver.beginPoint(request(about), signal())
    expect(changed(again.disks[1])).toEqual([[2, 1]])
    await driver.releasePoint(again.pointId, 'dropped')
  })

  it('says that change tracking was lost when the daemon was killed, and goes on', async () => {
    const full = await driver.beginPoint(request(), signal())
    await driver.releasePoint(full.pointId, 'committed')
    const about = { bases: [asBase(full, 'backup-1')], committedPointIds: [full.pointId] }
    const killed = await driver.beginPoint(request(about), signal())
    for (const { pid } of await findStorageDaemons(runFolder)) process.kill(pid, 'SIGKILL')
    await sleep(100)
    expect((await failure(driver.confirmPoint(killed.pointId, signal()))).reason).toBe('POINT_LOST')
    await driver.releasePoint(killed.pointId, 'dropped')
    const next = await driver.beginPoint(request(about), signal())
    expect(next.disks[0]?.decisions.map((note) => note.decision)).toEqual(['CHANGE_TRACKING_LOST'])
    expect(next.disks[0]?.changedContext).toBeNull()
    await driver.releasePoint(next.pointId, 'committed')
    expect(bitmapNames('a')).toEqual([bitmapName(repositoryId, next.pointId)])
  })

  it('refuses a machine whose image somebody holds, and leaves nothing', async () => {
    {
      await using _holder = await holdImage('qcow2', path('b'))
      expect((await failure(driver.beginPoint(request(), signal()))).reason).toBe('IMAGE_IN_USE')
      expect(await readdir(runFolder)).toEqual([])
    }
    expect(bitmapNames('a')).toEqual([])
  })

  it('keeps the machine from starting while it is read, and finds a replaced image', async () => {
    const point = await driver.beginPoint(request(), signal())
    expect(() => write('a', '1', '0', '512')).toThrow()
    await driver.confirmPoint(point.pointId, signal())
    await writeFile(`${path('a')}.new`, await readFile(path('a')))
    await rename(`${path('a')}.new`, path('a'))
    expect((await failure(driver.confirmPoint(point.pointId, signal()))).reason).toBe(
      'IMAGE_CHANGED',
    )
    await driver.releasePoint(point.pointId, 'dropped')
  })

  it('is found and removed by another process', async () => {
    const point = await driver.beginPoint(request(), signal())
    const other = newDriver()
    expect(await other.findPoints(signal())).toMatchObject([
      { pointId: point.pointId, vmIdentity: identity, ours: true },
    ])
    await other.confirmPoint(point.pointId, signal())
    expect((await failure(other.beginPoint(request(), signal()))).reason).toBe('VM_BUSY')
    await other.releasePoint(point.pointId, 'dropped')
    expect(await other.findPoints(signal())).toEqual([])
    expect(await findStorageDaemons(runFolder)).toEqual([])
  })

  it('refuses a machine with a half restored image, and still knows its disks', async () => {
    await writeFile(restoreMarkPath(path('b')), '')
    const [vm] = await driver.inventory(signal())
    expect(vm).toMatchObject({ state: 'off', refused: { reason: 'RESTORE_INCOMPLETE' } })
    expect(vm?.disks.map(({ id }) => id)).toEqual(['a', 'b'])
    const refused = await failure(driver.beginPoint(request(), signal()))
    expect(refused.reason).toBe('RESTORE_INCOMPLETE')
  })

  it.each([
    [
      'an overlay of itself',
      'mv a.qcow2 below; qemu-img create -q -f qcow2 -F qcow2 -b below a.qcow2',
    ],
    ['a rebased one', 'cp b.qcow2 below; qemu-img rebase -u -F qcow2 -b below a.qcow2'],
    ['a copy', 'cp a.qcow2 copy; mv copy a.qcow2'],
    ['a half restored one', `touch ${restoreMarkPath('a.qcow2')}`],
  ])('reads no image that became %s while its tables were checked', async (_, replace) => {
    write('a', '1', '0', '3M')
    const bin = join(home, 'bin')
    await mkdir(bin)
    const done = join(home, 'replaced')
    const once = `[ -e ${done} ] || (touch ${done}; cd ${home}; ${replace})`
    const path = process.env.PATH ?? ''
    const script = `#!/bin/sh\nPATH=${path}\n${once}\nexec qemu-img "$@"\n`
    await writeFile(join(bin, 'qemu-img'), script, { mode: 0o755 })
    vi.stubEnv('PATH', `${bin}:${path}`)
    const changed = await failure(driver.beginPoint(request(), signal()))
    expect(changed.reason).toBe(
      replace.startsWith('touch') ? 'RESTORE_INCOMPLETE' : 'IMAGE_CHANGED',
    )
    expect(await driver.findPoints(signal())).toEqual([])
  })

  it('lists a machine whose image is gone as refused', async () => {
    await rm(path('a'))
    const [vm] = await driver.inventory(signal())
    expect(vm).toMatchObject({ state: 'off', refused: { reason: 'IMAGE_MISSING' } })
    expect((await failure(driver.beginPoint(request(), signal()))).reason).toBe('IMAGE_MISSING')
    const unknown = request({ vmIdentity: 'nobody' })
    expect((await failure(driver.beginPoint(unknown, signal()))).reason).toBe('VM_NOT_FOUND')
  })
})
