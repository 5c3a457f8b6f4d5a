// What every snapshot driver promises, whatever it drives. A new driver is done when
// this suite passes for it.
import { createHash } from 'node:crypto'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { newPointId, sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import type {
  BeginPoint,
  DiskAddress,
  HypervisorDriver,
  Point,
  PointDisk,
} from '@blockferry/hypervisor'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { copyExport } from './images.ts'

/** One VM with two disks on a platform, for as long as the suite runs. */
export interface HypervisorSubject extends AsyncDisposable {
  vmIdentity: string
  vmName: string
  /** Ids of the two disks, in the order of the inventory. */
  diskIds: [string, string]
  /** A driver with this installation's tag; each call is like a new process of ours. */
  open(tag: string): HypervisorDriver
  /** Writes the pattern to the first disk as the VM or somebody else would; may be refused. */
  write(pattern: number): Promise<void>
  /**
   * Lets the VM write the same ascending number to the first disk and then to the second, at
   * `pairOffset`, until the answer is called. Null where nobody writes while a point exists.
   */
  writePairs: (() => Promise<() => Promise<void>>) | null
  /** Everything that points left on the platform and in our folders, in words; should be empty. */
  leftovers(): Promise<string[]>
}

/** Where writePairs writes: its number in decimal digits, then blanks. */
export const pairOffset = 1024 * 1024

const tag = 'c0ffee'
const signal = () => new AbortController().signal

export function hypervisorContract(name: string, make: () => Promise<HypervisorSubject>): void {
  describe(`${name} as a hypervisor driver`, () => {
    let subject: HypervisorSubject
    let driver: HypervisorDriver
    let folder: string

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'bf-contract-'))
      subject = await make()
      driver = subject.open(tag)
    }, 120_000)

    afterAll(async () => {
      await driver?.[Symbol.asyncDispose]()
      await subject?.[Symbol.asyncDispose]()
      await rm(folder, { recursive: true })
    })

    afterEach(async () => {
      for (const { pointId } of await driver.findPoints(signal())) {
        await driver.releasePoint(pointId, 'dropped', signal())
      }
      await expectNothingLeft('the test')
    })

    const request = (more: Partial<BeginPoint> = {}): BeginPoint => ({
      pointId: newPointId(),
      vmIdentity: subject.vmIdentity,
      repositoryId: 'feedbeef'.repeat(4),
      bases: [],
      committedPointIds: [],
      keptPointIds: [],
      quiesce: false,
      ...more,
    })

    /** Nothing is left soon: what runs beside the driver may take a moment to tidy up. */
    async function expectNothingLeft(afterWhat: string): Promise<void> {
      let left = await subject.leftovers()
      for (let tries = 0; left.length > 0 && tries < 20; tries++) {
        await sleep(100)
        left = await subject.leftovers()
      }
      expect(left, `left by ${afterWhat}`).toEqual([])
    }

    const begin = (more: Partial<BeginPoint> = {}) => driver.beginPoint(request(more), signal())

    const readDisks = async (point: Point) =>
      await Promise.all(point.disks.map((disk) => readDisk(disk, folder)))

    it('lists the VM with its identity and its disks', async () => {
      const vms = await driver.inventory(signal())
      const [vm, ...others] = vms.filter((one) => one.identity === subject.vmIdentity)
      expect(others).toEqual([])
      expect(vm).toMatchObject({ name: subject.vmName, refused: null })
      expect(vm?.disks.map((disk) => disk.id)).toEqual(subject.diskIds)
      for (const disk of vm?.disks ?? []) expect(disk.sizeBytes).toBeGreaterThan(0)
    })

    it('names a VM that it does not know', async () => {
      expect(await reasonOf(begin({ vmIdentity: 'nobody' }))).toBe('VM_NOT_FOUND')
    })

    it('shows all disks in full size until the point is released', async () => {
      const point = await begin()
      expect(point.vm.identity).toBe(subject.vmIdentity)
      expect(point.disks.map((disk) => disk.id)).toEqual(subject.diskIds)
      const bytes = await readDisks(point)
      expect(bytes.map((one) => one.length)).toEqual(point.disks.map((disk) => disk.sizeBytes))
      for (const disk of point.disks) expect(disk.changedContext).toBeNull()
      await driver.confirmPoint(point.pointId, signal())
      await driver.releasePoint(point.pointId, 'committed', signal())
      for (const disk of point.disks) {
        if (disk.address.kind === 'nbd') await expect(readDisk(disk, folder)).rejects.toThrow()
      }
    })

    it('shows one instant while the source is written, or says that the image changed', async () => {
      await subject.write(0x11)
      const point = await begin()
      const before = (await readDisks(point)).map(digest)
      for (const pattern of [0x22, 0x33]) await subject.write(pattern)
      const after = (await readDisks(point)).map(digest)
      const confirmed = await driver.confirmPoint(point.pointId, signal()).then(
        () => 'confirmed',
        (thrown: BackupError) => thrown.reason,
      )
      if (confirmed === 'confirmed') expect(after).toEqual(before)
      else expect(confirmed).toBe('IMAGE_CHANGED')
    })

    it('shows two disks at one instant', async ({ skip }) => {
      if (!subject.writePairs) return skip('nobody writes while a point exists')
      const stop = await subject.writePairs()
      try {
        for (let round = 0; round < 3; round++) {
          const point = await begin()
          const [first, second] = (await readDisks(point)).map(numberAt)
          // The first disk is written first: it is level, or one ahead.
          expect([0, 1]).toContain((first ?? Number.NaN) - (second ?? Number.NaN))
          await driver.confirmPoint(point.pointId, signal())
          await driver.releasePoint(point.pointId, 'dropped', signal())
          await sleep(50)
        }
      } finally {
        await stop()
      }
    })

    it('answers the same point again for its id', async () => {
      const about = request()
      const point = await driver.beginPoint(about, signal())
      expect(await driver.beginPoint(about, signal())).toEqual(point)
    })

    it('refuses a second point of the VM and leaves the first one alone', async () => {
      const point = await begin()
      const before = (await readDisks(point)).map(digest)
      const busy = await failureOf(begin())
      expect(busy.reason).toBe('VM_BUSY')
      expect(busy.metadata.owner).toBeTruthy()
      expect((await readDisks(point)).map(digest)).toEqual(before)
      await driver.confirmPoint(point.pointId, signal())
    })

    it('releases a point as often as it is asked, also one that never was', async () => {
      const { pointId } = await begin()
      for (const outcome of ['committed', 'committed', 'dropped'] as const) {
        await driver.releasePoint(pointId, outcome, signal())
      }
      await Promise.all([1, 2].map(() => driver.releasePoint(newPointId(), 'dropped', signal())))
      expect(await driver.findPoints(signal())).toEqual([])
      expect(await reasonOf(driver.confirmPoint(pointId, signal()))).toMatch(
        /^POINT_(LOST|NOT_FOUND)$/,
      )
    })

    it('leaves nothing behind wherever it is cancelled', async () => {
      for (const afterMs of [0, 5, 20, 60, 150, 300]) {
        const abort = new AbortController()
        const begun = driver.beginPoint(request(), abort.signal).then(
          (point) => point,
          () => null,
        )
        await sleep(afterMs)
        abort.abort(new BackupError('CANCELLED', 'the test cancelled it'))
        const point = await begun
        if (point) await driver.releasePoint(point.pointId, 'dropped', signal())
        await expectNothingLeft(`a begin that was cancelled after ${afterMs} ms`)
      }
      await begin()
    })

    it('is found and removed by a process that did not take it', async () => {
      const { pointId } = await begin()
      const later = subject.open(tag)
      const found = { pointId, vmIdentity: subject.vmIdentity, vmName: subject.vmName, ours: true }
      expect(await later.findPoints(signal())).toMatchObject([found])
      await later.confirmPoint(pointId, signal())
      await later.releasePoint(pointId, 'dropped', signal())
      expect(await later.findPoints(signal())).toEqual([])
      await expectNothingLeft('the release')
    })

    it('is never removed by another installation', async () => {
      const { pointId } = await begin()
      const others = subject.open('badbad')
      expect(await others.findPoints(signal())).toMatchObject([
        { pointId, ours: false, owner: tag },
      ])
      await others.releasePoint(pointId, 'dropped', signal())
      expect(await reasonOf(others.beginPoint(request(), signal()))).toBe('VM_BUSY')
      await driver.confirmPoint(pointId, signal())
    })
  })
}

async function readDisk(disk: PointDisk, folder: string): Promise<Buffer> {
  const path = join(folder, `${disk.id}.copy`)
  await rm(path, { force: true })
  await copyDisk(disk.address, path)
  return await readFile(path)
}

async function copyDisk(address: DiskAddress, path: string): Promise<void> {
  if (address.kind === 'nbd') return await copyExport(address.uri, path)
  const source = await open(address.path, 'r')
  const target = await open(path, 'w')
  try {
    await pipeline(source.createReadStream({ autoClose: false }), target.createWriteStream())
  } finally {
    await source.close()
    await target.close()
  }
}

const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

const numberAt = (bytes: Buffer) =>
  Number(bytes.toString('latin1', pairOffset, pairOffset + 16).trim())

async function failureOf(work: Promise<unknown>): Promise<BackupError> {
  const thrown = await work.then(
    () => null,
    (error: unknown) => error,
  )
  if (thrown instanceof BackupError) return thrown
  throw new Error(`a BackupError was promised, got ${String(thrown)}`)
}

const reasonOf = async (work: Promise<unknown>) => (await failureOf(work)).reason
