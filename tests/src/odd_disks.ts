// Odd but valid disks have to round-trip: sizes nobody expects, and disks that come, go,
// change places, grow and shrink between two backups.
import { execFile } from 'node:child_process'
import { mkdir, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { monotonicMs } from '@blockferry/core'
import { backup, move, schedule } from '@blockferry/proto'
import { type GuestDisk, Lab, Random, Stand, sameContent, succeeded } from '@blockferry/testkit'
import { check, type Row, type Scenario, type ScenarioOptions, Tally } from './row.ts'

const execute = promisify(execFile)
const mebibyte = 1024 * 1024
const gibibyte = 1024 * mebibyte
const bigDiskMsMax = 60_000

interface OddImage {
  name: string
  format: 'raw' | 'qcow2'
  sizeBytes: number
}

const images: OddImage[] = (['raw', 'qcow2'] as const).flatMap((format) => [
  { name: `zero bytes, ${format}`, format, sizeBytes: 0 },
  { name: `1 MiB + 512 B, ${format}`, format, sizeBytes: mebibyte + 512 },
  { name: `10 GiB sparse, ${format}`, format, sizeBytes: 10 * gibibyte },
  { name: `2 TiB sparse, ${format}`, format, sizeBytes: 2048 * gibibyte },
])
// Raw files may have any size; QEMU's own formats count in sectors.
images.push({ name: '77,777 bytes, raw', format: 'raw', sizeBytes: 77_777 })

async function runSizes(options: ScenarioOptions): Promise<Row[]> {
  const { runs, seed, folder, tell } = options
  const random = new Random(seed)
  const stand = await Stand.start({ folder: join(folder, 's') })
  await using _ = stand
  await stand.catalog.createRepository({
    repositoryId: 'main',
    folder: join(folder, 'repository'),
    adopt: false,
    requestId: '',
    passphraseFile: '',
  })
  const rows: Row[] = []
  for (const image of images) {
    const tally = new Tally('odd-sizes', image.name, seed)
    let slowestMs = 0
    for (let index = 0; index < runs; index++) {
      tell(`${image.name}, ${index + 1} of ${runs}`)
      await tally.try(`run ${index + 1}`, async () => {
        const place = join(folder, `odd-${images.indexOf(image)}-${index}`)
        await mkdir(place)
        const path = join(place, `disk.${image.format}`)
        await createImage(path, image, random)
        slowestMs = Math.max(slowestMs, await roundTrip(stand, place, path, image))
        await rm(place, { recursive: true })
        return true
      })
    }
    rows.push(tally.row({ slowest_step_ms: Math.round(slowestMs) }))
  }
  return rows
}

/** Writes 64 KiB of random bytes at a few places, among them the very end. */
async function createImage(path: string, image: OddImage, random: Random): Promise<void> {
  const { format, sizeBytes } = image
  await execute('qemu-img', ['create', '-q', '-f', format, path, String(sizeBytes)])
  if (format === 'raw') await execute('truncate', ['-s', String(sizeBytes), path])
  const size = Math.min(65_536, sizeBytes)
  const offsets = [0, 1, 2].map(() => Math.floor((random.next() * (sizeBytes - size)) / 512) * 512)
  for (const offset of [...offsets, sizeBytes - size]) {
    if (size === 0) continue
    const pattern = 1 + random.below(255)
    if (format === 'raw') {
      const file = await open(path, 'r+')
      await file.write(Buffer.alloc(size, pattern), 0, size, offset)
      await file.close()
    } else {
      const write = `write -P ${pattern} ${offset} ${size}`
      await execute('qemu-io', ['-f', format, '-c', write, path])
    }
  }
}

/** Backs up, restores as raw and qcow2, compares; the slowest step in ms. */
async function roundTrip(
  stand: Stand,
  place: string,
  path: string,
  image: OddImage,
): Promise<number> {
  let slowestMs = 0
  const timed = async (started: { run?: schedule.Run | undefined }) => {
    const startMs = monotonicMs()
    const ended = succeeded(await stand.runEnd(started.run?.name ?? ''))
    const tookMs = monotonicMs() - startMs
    slowestMs = Math.max(slowestMs, tookMs)
    check(tookMs < bigDiskMsMax, `took ${tookMs} ms`)
    return ended
  }
  const made = await timed(
    await stand.schedule.startBackup(
      schedule.StartBackupRequest.create({ vm: `odd ${image.name}`, images: [path] }),
    ),
  )
  check(Number(made.disks[0]?.sizeBytes) === image.sizeBytes, `size ${made.disks[0]?.sizeBytes}`)
  for (const format of ['raw', 'qcow2'] as const) {
    const restored = await timed(
      await stand.schedule.startRestore(
        schedule.StartRestoreRequest.create({
          backup: made.backup,
          targetFolder: join(place, format),
          format: move.ImageFormat[format === 'raw' ? 'RAW' : 'QCOW2'],
        }),
      ),
    )
    const target = restored.disks[0]?.targetPath ?? ''
    check(
      await sameContent({ path: target, format }, { path, format: image.format }),
      `${format} differs`,
    )
    const { stdout } = await execute('qemu-img', ['info', '--output=json', target])
    const size = JSON.parse(stdout)['virtual-size']
    // QEMU counts in sectors: an odd raw file becomes a qcow2 image of the next 512 bytes.
    const sectors = Math.ceil(image.sizeBytes / 512) * 512
    check(size === sectors || size === image.sizeBytes, `${format} has ${size} bytes`)
  }
  return slowestMs
}

interface Change {
  name: string
  apply: (disks: GuestDisk[]) => Promise<GuestDisk[]>
  expects: string | null
}

const resize = async (disks: GuestDisk[], sizeBytes: number): Promise<GuestDisk[]> => {
  const last = disks.at(-1) as GuestDisk
  const shrink = sizeBytes < last.sizeBytes ? ['--shrink'] : []
  await execute('qemu-img', ['resize', '-q', ...shrink, last.path, String(sizeBytes)])
  return [...disks.slice(0, -1), { ...last, sizeBytes }]
}

const changes: Change[] = [
  {
    name: 'added',
    apply: async (disks) => [
      ...disks,
      {
        path: disks[0]?.path.replace('first', 'third') ?? '',
        format: 'qcow2',
        sizeBytes: 96 * mebibyte,
        filesystem: false,
        serial: 'third',
      },
    ],
    expects: 'DISK_ADDED',
  },
  { name: 'reordered', apply: async (disks) => [...disks].reverse(), expects: null },
  { name: 'removed', apply: async (disks) => disks.slice(1), expects: 'DISK_GONE' },
  { name: 'grown', apply: (disks) => resize(disks, 192 * mebibyte), expects: 'DISK_RESIZED' },
  { name: 'shrunk', apply: (disks) => resize(disks, 64 * mebibyte), expects: 'DISK_RESIZED' },
]

async function runChanges({ seed, folder, tell }: ScenarioOptions): Promise<Row[]> {
  let disks: GuestDisk[] = []
  await using lab = await Lab.start({
    folder,
    referenceAt: 'begin',
    disks: (vm) => {
      const plain = (name: string): GuestDisk => ({
        path: join(vm, `${name}.qcow2`),
        format: 'qcow2',
        sizeBytes: 128 * mebibyte,
        filesystem: false,
        serial: name,
      })
      if (disks.length === 0) disks = [plain('first'), plain('second')]
      return disks
    },
  })
  await fill(lab)
  await lab.backUp(backup.Level.FULL)
  const rows: Row[] = []
  for (const change of changes) {
    tell(`a disk is ${change.name}`)
    const tally = new Tally('odd-changes', `disk ${change.name}`, seed)
    await tally.try(change.name, async () => {
      await lab.guest.stop()
      disks = await change.apply(disks)
      await lab.bootAgain()
      await fill(lab)
      const made = await lab.backUp(backup.Level.INCREMENTAL)
      const decisions = made.decisions.map(({ decision, disk }) => `${decision} ${disk}`)
      if (change.expects) {
        check(
          decisions.some((one) => one.startsWith(change.expects ?? '')),
          `said ${decisions}`,
        )
      } else {
        const used = decisions.filter((one) => one.startsWith('CHANGED_BLOCKS_USED'))
        check(used.length > 0, `paired by position? said ${decisions}`)
        const read = made.disks.reduce((sum, disk) => sum + Number(disk.readBytes), 0)
        check(read < 16 * mebibyte, `read ${read} bytes`)
      }
      const references = lab.references.get(made.pointId) ?? []
      check(references.length === disks.length, `${references.length} disks in the point`)
      const different = await lab.differences(made.backup, references)
      check(different.length === 0, `${different} restored otherwise than nbdcopy read it`)
      return true
    })
    rows.push(tally.row())
  }
  return rows
}

/** A few random blocks on each disk of the guest. */
async function fill(lab: Lab): Promise<void> {
  await lab.guest.sh(
    'for d in /dev/vd?; do dd if=/dev/urandom of=$d bs=64k count=8 seek=16 oflag=direct || exit 1; done',
  )
}

export const oddSizes: Scenario = {
  name: 'odd-sizes',
  summary: '0 bytes, 1 MiB + 512 B, 10 GiB and 2 TiB sparse: identical',
  runsFull: 3,
  runsReduced: 1,
  run: runSizes,
}

export const oddChanges: Scenario = {
  name: 'odd-changes',
  summary: 'disks added, reordered, removed, grown, shrunk between backups',
  runsFull: 1,
  runsReduced: 1,
  run: runChanges,
}
