// Every disk format in and out, through an installation as a user runs it. What comes back is
// compared with what went in by qemu-img; of disks of 2 TiB in formats whose holes QEMU finds slowly
// only the places that were written, and some beside them.
import { execFile } from 'node:child_process'
import { mkdir, open, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { monotonicMs } from '@blockferry/core'
import { asBackupError } from '@blockferry/errors'
import { type ImageFormatName, imageFormatNames, imageFormatOf, schedule } from '@blockferry/proto'
import { Random, Stand, sameContent, succeeded } from '@blockferry/testkit'
import { check, type Row, type Scenario, type ScenarioOptions, Tally } from './row.ts'

const execute = promisify(execFile)
const gibibyte = 2 ** 30
const stepMsMax = 60_000
const compareMsMax = 10 * 60_000

interface InFormat {
  name: string
  driver: string
  options: string
  /** Largest disk of the scenario's sizes that it holds. */
  gibibytesMax: number
}

const driverOf = (format: ImageFormatName): string => (format === 'vhd' ? 'vpc' : format)

const inFormats: InFormat[] = [
  { name: 'raw', driver: 'raw', options: '', gibibytesMax: 2048 },
  { name: 'qcow2', driver: 'qcow2', options: '', gibibytesMax: 2048 },
  {
    name: 'qcow2 with a data file',
    driver: 'qcow2',
    options: 'data_file=FOLDER/data.bin',
    gibibytesMax: 2048,
  },
  {
    name: 'VMDK monolithicSparse',
    driver: 'vmdk',
    options: 'subformat=monolithicSparse',
    gibibytesMax: 2040,
  },
  {
    name: 'VMDK monolithicFlat',
    driver: 'vmdk',
    options: 'subformat=monolithicFlat',
    gibibytesMax: 2048,
  },
  {
    name: 'VMDK twoGbMaxExtentSparse',
    driver: 'vmdk',
    options: 'subformat=twoGbMaxExtentSparse',
    gibibytesMax: 2048,
  },
  {
    name: 'VMDK twoGbMaxExtentFlat',
    driver: 'vmdk',
    options: 'subformat=twoGbMaxExtentFlat',
    gibibytesMax: 2048,
  },
  {
    name: 'VMDK streamOptimized',
    driver: 'vmdk',
    options: 'subformat=streamOptimized',
    gibibytesMax: 10,
  },
  {
    name: 'VHD dynamic',
    driver: 'vpc',
    options: 'subformat=dynamic,force_size=on',
    gibibytesMax: 2040,
  },
  {
    name: 'VHD fixed',
    driver: 'vpc',
    options: 'subformat=fixed,force_size=on',
    gibibytesMax: 2040,
  },
  { name: 'VHDX dynamic', driver: 'vhdx', options: 'subformat=dynamic', gibibytesMax: 2048 },
  { name: 'VDI dynamic', driver: 'vdi', options: '', gibibytesMax: 2048 },
  // Written out in full when it is made.
  { name: 'VDI static', driver: 'vdi', options: 'static=on', gibibytesMax: 0.01 },
]

const sizes = [
  { name: '1 MiB + 512 B', sizeBytes: 2 ** 20 + 512 },
  { name: '10 GiB sparse', sizeBytes: 10 * gibibyte },
  { name: '2 TiB sparse', sizeBytes: 2048 * gibibyte },
]

const outGibibytesMax: Partial<Record<ImageFormatName, number>> = { vmdk: 2047, vhd: 2040 }

interface Written {
  offset: number
  pattern: number
}

const writtenBytes = 65_536

interface Pair {
  format: InFormat
  sizeBytes: number
  shown: string
}

/** Every format with every size that it holds. */
function allPairs(): Pair[] {
  return inFormats.flatMap((format) =>
    sizes.flatMap((size) => {
      const sizeBytes = Math.min(size.sizeBytes, format.gibibytesMax * gibibyte)
      if (sizeBytes < size.sizeBytes && format.gibibytesMax < 1024) return []
      const isCut = sizeBytes < size.sizeBytes
      return [
        { format, sizeBytes, shown: isCut ? `${sizeBytes / gibibyte} GiB sparse` : size.name },
      ]
    }),
  )
}

/** Each run is one image; fewer runs than pairs of a format and a size take some by the seed. */
async function runFormats(options: ScenarioOptions): Promise<Row[]> {
  const { runs, seed, folder, tell } = options
  const random = new Random(seed)
  await using stand = await Stand.start({ folder: join(folder, 's') })
  await createRepository(stand, folder)
  const pairs = allPairs()
  const chosen = random
    .sample(Math.min(runs, pairs.length), pairs.length)
    .map((at) => pairs[at] as Pair)
  const rows: Row[] = []
  for (const [which, { format, sizeBytes, shown }] of chosen.entries()) {
    const tally = new Tally('formats', `${format.name}, ${shown}`, seed)
    let slowestMs = 0
    for (let index = which; index < runs; index += chosen.length) {
      tell(`${format.name}, ${shown}, ${index + 1} of ${runs}`)
      const place = join(folder, 'images')
      await tally.try(`run ${index + 1}`, async () => {
        await mkdir(place)
        const path = join(place, 'disk.img')
        const written = await createImage(path, format, sizeBytes, random)
        slowestMs = Math.max(slowestMs, await roundTrip(stand, path, format, sizeBytes, written))
        return true
      })
      await rm(place, { recursive: true, force: true })
    }
    rows.push(tally.row({ slowest_step_ms: Math.round(slowestMs) }))
  }
  rows.push(...(await runMutations(stand, options, random)))
  return rows
}

const createRepository = (stand: Stand, folder: string) =>
  stand.catalog.createRepository({
    ...{ repositoryId: 'main', folder: join(folder, 'repository'), adopt: false, requestId: '' },
    passphraseFile: '',
  })

/** 64 KiB of one byte each at three places and at the very end. */
async function createImage(
  path: string,
  { driver, options }: InFormat,
  sizeBytes: number,
  random: Random,
): Promise<Written[]> {
  const place = (): number => Math.floor((random.next() * (sizeBytes - writtenBytes)) / 512) * 512
  const offsets = [place(), place(), place(), sizeBytes - writtenBytes]
  const written = offsets.map((offset) => ({ offset, pattern: 1 + random.below(255) }))
  const given = options === '' ? [] : ['-o', options.replace('FOLDER', join(path, '..'))]
  if (options === 'subformat=streamOptimized') {
    // It can only be written from its beginning to its end.
    const plain = `${path}.plain`
    await execute('qemu-img', ['create', '-q', '-f', 'raw', plain, String(sizeBytes)])
    await writePatterns(plain, 'raw', written)
    await execute('qemu-img', ['convert', '-f', 'raw', '-O', driver, ...given, plain, path])
    await rm(plain)
    return written
  }
  await execute('qemu-img', ['create', '-q', '-f', driver, ...given, path, String(sizeBytes)])
  await writePatterns(path, driver, written)
  return written
}

async function writePatterns(path: string, driver: string, written: Written[]): Promise<void> {
  const commands = written.flatMap(({ offset, pattern }) => [
    ...['-c', `write -P ${pattern} ${offset} ${writtenBytes}`],
  ])
  await execute('qemu-io', ['-f', driver, ...commands, path])
}

/** Backs up, restores in every format, compares; the slowest step in ms. */
async function roundTrip(
  stand: Stand,
  path: string,
  format: InFormat,
  sizeBytes: number,
  written: Written[],
): Promise<number> {
  let slowestMs = 0
  const timed = async (started: { run?: schedule.Run | undefined }) => {
    const startMs = monotonicMs()
    const ended = succeeded(await stand.runEnd(started.run?.name ?? ''))
    const tookMs = monotonicMs() - startMs
    slowestMs = Math.max(slowestMs, tookMs)
    check(tookMs < stepMsMax, `took ${Math.round(tookMs)} ms`)
    return ended
  }
  const made = await timed(
    await stand.schedule.startBackup(
      schedule.StartBackupRequest.create({ vm: `formats ${format.name}`, images: [path] }),
    ),
  )
  check(Number(made.disks[0]?.sizeBytes) === sizeBytes, `size ${made.disks[0]?.sizeBytes}`)
  for (const out of imageFormatNames) {
    if (sizeBytes > (outGibibytesMax[out] ?? Infinity) * gibibyte) continue
    const targetFolder = join(path, '..', `as-${out}`)
    const request = schedule.StartRestoreRequest.create({
      ...{ backup: made.backup, targetFolder, format: imageFormatOf(out) ?? 0 },
    })
    const restored = await timed(await stand.schedule.startRestore(request))
    const target = { path: restored.disks[0]?.targetPath ?? '', format: driverOf(out) }
    const source = { path, format: format.driver }
    const same = isWhole(target.format, format, sizeBytes)
      ? await sameContent(target, source)
      : await sameInPlaces(target, source, sizeBytes, written)
    check(same, `${out} differs`)
    check((await stat(target.path)).blocks * 512 < 256 * 2 ** 20, `${out} is not thin`)
    await rm(targetFolder, { recursive: true })
  }
  return slowestMs
}

/** Whether qemu-img can compare all of it in seconds: it asks for holes grain by grain, or reads them. */
function isWhole(outDriver: string, format: InFormat, sizeBytes: number): boolean {
  const isSlow = [outDriver, format.driver].some((driver) => !['raw', 'qcow2'].includes(driver))
  return !isSlow || sizeBytes < gibibyte
}

/** The written places with a MiB on both sides, and zeroes at the beginning. */
async function sameInPlaces(
  target: { path: string; format: string },
  source: { path: string; format: string },
  sizeBytes: number,
  written: Written[],
): Promise<boolean> {
  const margin = 2 ** 20
  for (const { offset } of [{ offset: 0 }, ...written]) {
    const from = Math.max(0, Math.floor((offset - margin) / 512) * 512)
    const size = Math.min(sizeBytes, offset + writtenBytes + margin) - from
    const part = ({ path, format }: { path: string; format: string }) =>
      `json:${JSON.stringify({
        ...{ driver: 'raw', offset: from, size },
        file: { driver: format, file: { driver: 'file', filename: path } },
      })}`
    const same = await execute('qemu-img', ['compare', '-U', part(target), part(source)], {
      timeout: compareMsMax,
    }).then(
      () => true,
      (thrown: { code?: number }) => {
        if (thrown.code === 1) return false
        throw thrown
      },
    )
    if (!same) return false
  }
  return true
}

/** Of each format: every sixth run adds one. */
const runsPerMutation = 6
const mutationMsMax = 60_000
const headerPieces: Record<string, number[]> = {
  qcow2: [0, 65_536, 131_072, 196_608],
  vmdk: [0, 512, 10_240, 11_264],
  vpc: [0, 512, 1_536],
  vhdx: [65_536, 131_072, 196_608, 262_144, 2_097_152, 3_145_728],
  vdi: [0, 340, 512],
}

/** Flips bytes in the headers and tables: refused with a reason, or read as QEMU reads it. */
async function runMutations(
  stand: Stand,
  { runs, seed, folder, tell }: ScenarioOptions,
  random: Random,
): Promise<Row[]> {
  const rows: Row[] = []
  const mutations = Math.ceil(runs / runsPerMutation)
  for (const format of inFormats.filter(({ driver }) => driver !== 'raw')) {
    const tally = new Tally('formats', `flipped bytes: ${format.name}`, seed)
    let refused = 0
    let slowestMs = 0
    for (let index = 0; index < mutations; index++) {
      tell(`flipped bytes: ${format.name}, ${index + 1} of ${mutations}`)
      const place = join(folder, 'mutated')
      await mkdir(place)
      const path = join(place, 'disk.img')
      await createImage(path, format, 8 * 2 ** 20 + 512, random)
      const flips = await flipBytes(path, format.driver, random)
      await tally.try(`${flips} flipped`, async () => {
        const startMs = monotonicMs()
        const outcome = await backUpAndCompare(stand, path, format)
        slowestMs = Math.max(slowestMs, monotonicMs() - startMs)
        check(slowestMs < mutationMsMax, `took ${Math.round(slowestMs)} ms`)
        if (outcome === 'refused') refused++
        return true
      })
      await rm(place, { recursive: true })
    }
    rows.push(tally.row({ refused, slowest_ms: Math.round(slowestMs) }))
  }
  return rows
}

async function flipBytes(path: string, driver: string, random: Random): Promise<string> {
  const file = await open(path, 'r+')
  const { size } = await file.stat()
  const flips: string[] = []
  for (let count = 1 + random.below(4); count > 0; count--) {
    const pieces = headerPieces[driver] ?? [0]
    // Half of them in the footer, for a VHD of fixed size.
    const isFooter = driver === 'vpc' && random.below(2) === 0
    const start = isFooter ? size - 512 : (pieces[random.below(pieces.length)] ?? 0)
    const at = Math.min(size - 1, start + random.below(isFooter ? 512 : 128))
    const byte = Buffer.alloc(1)
    await file.read(byte, 0, 1, at)
    byte[0] = (byte[0] ?? 0) ^ (1 + random.below(255))
    await file.write(byte, 0, 1, at)
    flips.push(String(at))
  }
  await file.close()
  return flips.join(', ')
}

async function backUpAndCompare(
  stand: Stand,
  path: string,
  format: InFormat,
): Promise<'refused' | 'identical'> {
  const vm = `mutated ${format.name}`
  let ended: schedule.Run
  try {
    const started = await stand.schedule.startBackup(
      schedule.StartBackupRequest.create({ vm, images: [path] }),
    )
    ended = await stand.runEnd(started.run?.name ?? '')
  } catch (thrown) {
    const failure = asBackupError(thrown)
    check(failure !== null && failure.reason !== 'INTERNAL', `failed with ${String(thrown)}`)
    return 'refused'
  }
  if (ended.state !== schedule.Run_State.SUCCEEDED) {
    const said = `${ended.error?.reason}: ${ended.error?.message}`
    check(!/^(INTERNAL|undefined|)$/.test(ended.error?.reason ?? ''), said)
    check(said.includes('disk'), `does not name the image: ${said}`)
    return 'refused'
  }
  const wanted = join(path, '..', 'wanted.raw')
  const isRaw = await isPlain(path, format.driver)
  const read = ['-f', isRaw ? 'raw' : format.driver, '-O', 'raw', path, wanted]
  // An image that QEMU by itself refuses has nothing to be compared with.
  const converted = await execute('qemu-img', ['convert', ...read], { timeout: stepMsMax }).then(
    () => true,
    () => false,
  )
  check(converted, 'backed up what qemu-img cannot read')
  const targetFolder = join(path, '..', 'new')
  const restored = succeeded(
    await stand.runEnd(
      (
        await stand.schedule.startRestore(
          schedule.StartRestoreRequest.create({ backup: ended.backup, targetFolder, format: 1 }),
        )
      ).run?.name ?? '',
    ),
  )
  const target = { path: restored.disks[0]?.targetPath ?? '', format: 'raw' }
  check(await sameContent(target, { path: wanted, format: 'raw' }), 'differs from what QEMU reads')
  return 'identical'
}

const magics: Record<string, string[]> = {
  qcow2: ['QFI\xfb'],
  vmdk: ['KDMV', '# Disk DescriptorFile'],
  vhdx: ['vhdxfile'],
  vdi: ['\x7f\x10\xda\xbe'],
  vpc: ['conectix'],
}

/**
 * The flip may have hit the magic: then the file is plain bytes. qemu-img's own guess also takes
 * a VHD of fixed size for plain bytes, and a VMDK whose version it does not know.
 */
async function isPlain(path: string, driver: string): Promise<boolean> {
  const file = await open(path)
  const { size } = await file.stat()
  const starts = [driver === 'vdi' ? 64 : 0, ...(driver === 'vpc' ? [size - 512] : [])]
  const head = Buffer.alloc(32)
  let isFound = false
  for (const start of starts) {
    await file.read(head, 0, head.length, start)
    const text = head.toString('latin1')
    isFound ||= magics[driver]?.some((magic) => text.startsWith(magic)) === true
  }
  await file.close()
  return !isFound
}

export const formats: Scenario = {
  name: 'formats',
  summary: 'every disk format in and out, three sizes: identical; flipped bytes: refused or right',
  runsFull: allPairs().length,
  runsReduced: 6,
  run: runFormats,
}
