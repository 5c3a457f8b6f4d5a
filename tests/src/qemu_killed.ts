// QEMU is killed with -9 between two backups: its bitmaps are lost. The next run reads all
// allocated bytes, counted by a server between QEMU and the mover, and stores what differs.
import { type ChildProcess, spawn } from 'node:child_process'
import { access, open, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { monotonicMs, sleep } from '@blockferry/core'
import { backup, type snapshot } from '@blockferry/proto'
import { extentsOf, Lab, type Reference } from '@blockferry/testkit'
import { check, type Row, type Scenario, type ScenarioOptions, Tally } from './row.ts'

const blockSize = 65_536
/** A map's inner nodes and a pack's headers, per changed block and once. */
const storedPerBlockMax = blockSize + 8 * 1024
const startMsMax = 5_000

/** nbdkit between the export and the mover: passes everything on and counts what is read. */
class CountingServer {
  readonly uri: string
  readonly #statsPath: string
  readonly #child: ChildProcess

  private constructor(socket: string, statsPath: string, child: ChildProcess) {
    this.uri = `nbd+unix:///?socket=${socket}`
    this.#statsPath = statsPath
    this.#child = child
  }

  static async start(uri: string, folder: string, name: string): Promise<CountingServer> {
    const socket = join(folder, `${name}.count`)
    const statsPath = join(folder, `${name}.stats`)
    // What an earlier server left would look as if this one listened already.
    await rm(socket, { force: true })
    const child = spawn('nbdkit', [
      ...['--foreground', '--unix', socket, '--filter=stats', 'nbd', `uri=${uri}`],
      ...[`statsfile=${statsPath}`],
    ])
    const startMs = monotonicMs()
    while (
      !(await access(socket).then(
        () => true,
        () => false,
      ))
    ) {
      check(monotonicMs() - startMs < startMsMax, 'nbdkit did not start')
      await sleep(20)
    }
    return new CountingServer(socket, statsPath, child)
  }

  /** Ends the server; the bytes its clients read. */
  async readBytes(): Promise<number> {
    const gone = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGTERM')
    await gone
    const stats = await readFile(this.#statsPath, 'utf8')
    const [, amount = '', unit = ''] = /^read: \d+ ops, [^,]+, ([\d.]+) (\w+)/m.exec(stats) ?? []
    const factors: Record<string, number> = { bytes: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 }
    return Number(amount) * (factors[unit] ?? Number.NaN)
  }
}

async function run({ runs, seed, folder, tell }: ScenarioOptions): Promise<Row[]> {
  const servers = new Map<string, { server: CountingServer; allocated: number }>()
  let counting = false
  await using lab = await Lab.start({
    folder,
    referenceAt: 'begin',
    guest: { append: 'writer=1' },
    hooks: {
      snapshot: {
        after: async (method, _, response) => {
          if (method !== 'beginPoint' || !counting) return
          for (const disk of (response as snapshot.BeginPointResponse).point?.disks ?? []) {
            if (disk.address?.$case !== 'nbdUri') continue
            const extents = await extentsOf(disk.address.value, 'base:allocation')
            const data = extents.filter(({ type }) => (type & 1) === 0)
            const allocated = data.reduce((sum, { length }) => sum + length, 0)
            const server = await CountingServer.start(disk.address.value, folder, disk.disk)
            servers.set(disk.disk, { server, allocated })
            disk.address = { $case: 'nbdUri', value: server.uri }
          }
        },
      },
    },
  })
  let last = await lab.backUp(backup.Level.FULL)
  const tally = new Tally('qemu-killed', 'next run reads all, stores what differs', seed)
  for (let index = 0; index < runs; index++) {
    tell(`kill ${index + 1} of ${runs}`)
    await tally.try(`kill ${index + 1}`, async () => {
      await lab.bootAgain()
      await lab.guest.sh(`dd if=/dev/urandom of=/data/0/after${index} bs=64k count=20; sync`)
      counting = true
      const made = await lab.backUp(backup.Level.INCREMENTAL)
      counting = false
      const lost = made.decisions.filter(({ decision }) => decision === 'CHANGE_TRACKING_LOST')
      check(lost.length > 0, `no CHANGE_TRACKING_LOST: ${made.decisions.map((d) => d.decision)}`)
      const references = lab.references.get(made.pointId) ?? []
      for (const disk of made.disks) {
        const { server, allocated } = servers.get(disk.disk) as {
          server: CountingServer
          allocated: number
        }
        const read = await server.readBytes()
        // nbdkit prints three digits; whole blocks are read around an odd end of an extent.
        check(
          Math.abs(read - allocated) <= allocated * 0.02 + 16 * blockSize,
          `${disk.disk}: read ${read} of ${allocated} allocated bytes`,
        )
        const differing = await differingBlocks(
          lab.references.get(last.pointId),
          references,
          disk.disk,
        )
        check(
          Number(disk.blockCount) <= differing,
          `${disk.disk}: ${disk.blockCount} blocks new, ${differing} differ`,
        )
        const storedMax = differing * storedPerBlockMax + blockSize
        check(
          Number(disk.storedBytes) <= storedMax,
          `${disk.disk}: stored ${disk.storedBytes}, at most ${storedMax}`,
        )
      }
      const different = await lab.differences(made.backup, references)
      check(different.length === 0, `${different} restored otherwise than nbdcopy read it`)
      last = made
      return true
    })
    counting = false
  }
  return [tally.row()]
}

/** Blocks that differ between two references of one disk, compared byte by byte. */
async function differingBlocks(
  first: Reference[] | undefined,
  second: Reference[] | undefined,
  disk: string,
): Promise<number> {
  const paths = [first, second].map((all) => all?.find((one) => one.disk === disk)?.path ?? '')
  const [one, other] = await Promise.all(paths.map((path) => open(path)))
  check(one !== undefined && other !== undefined, `no references of ${disk}`)
  try {
    const { size } = await one.stat()
    const [left, right] = [Buffer.alloc(64 * blockSize), Buffer.alloc(64 * blockSize)]
    let count = 0
    for (let at = 0; at < size; at += left.length) {
      const { bytesRead } = await one.read(left, 0, left.length, at)
      await other.read(right, 0, right.length, at)
      if (left.equals(right)) continue
      for (let from = 0; from < bytesRead; from += blockSize) {
        const to = Math.min(from + blockSize, bytesRead)
        if (left.compare(right, from, to, from, to) !== 0) count++
      }
    }
    return count
  } finally {
    await one.close()
    await other.close()
  }
}

export const qemuKilled: Scenario = {
  name: 'qemu-killed',
  summary: 'QEMU killed with -9: the next run reads all and stores what differs',
  runsFull: 5,
  runsReduced: 1,
  run,
}
