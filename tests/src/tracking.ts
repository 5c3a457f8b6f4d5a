// The guest writes known blocks with O_DIRECT to a disk without a file system. What is
// reported, read and stored has to be just these blocks.
import { join } from 'node:path'
import { backup, type schedule } from '@blockferry/proto'
import { Lab, Random } from '@blockferry/testkit'
import { check, type Row, type Scenario, type ScenarioOptions, Tally } from './row.ts'

const blockSize = 65_536
const mebibyte = 1024 * 1024
const diskSizeBytes = 256 * mebibyte
const writtenMax = 48
/** What map nodes may add to the blocks themselves. */
const mapSizeMax = 64 * 1024
const diskName = 'disk0'

async function run({ runs, seed, folder, tell }: ScenarioOptions): Promise<Row[]> {
  const random = new Random(seed)
  await using lab = await Lab.start({
    folder,
    disks: (vm) => [
      {
        path: join(vm, 'plain.qcow2'),
        format: 'qcow2',
        sizeBytes: diskSizeBytes,
        filesystem: false,
      },
    ],
    guest: { append: '' },
  })
  await write(lab, random.sample(200, diskSizeBytes / blockSize))
  await lab.backUp(backup.Level.FULL)
  const sinceFull = new Set<number>()
  const tallies = {
    incremental: new Tally('tracking', 'incremental', seed),
    differential: new Tally('tracking', 'differential', seed),
  }
  for (let index = 0; index < runs; index++) {
    const level = index % 2 === 0 ? 'incremental' : 'differential'
    const blocks = random.sample(1 + random.below(writtenMax), diskSizeBytes / blockSize)
    tell(`${level} ${index + 1} of ${runs}: ${blocks.length} blocks`)
    await write(lab, blocks)
    for (const block of blocks) sinceFull.add(block)
    const expected = level === 'incremental' ? blocks.length : sinceFull.size
    await tallies[level].try(`run ${index + 1} (${expected} blocks)`, async () => {
      const made = await lab.backUp(
        backup.Level[level === 'incremental' ? 'INCREMENTAL' : 'DIFFERENTIAL'],
      )
      checkCounts(made, expected, blocks.length)
      const references = lab.references.get(made.pointId) ?? []
      const different = await lab.differences(made.backup, references)
      check(different.length === 0, `${different} restored otherwise than nbdcopy read it`)
      return true
    })
  }
  return [tallies.incremental.row(), tallies.differential.row()]
}

/** `fresh` blocks are new to the repository, the rest of `expected` it has already. */
function checkCounts(made: schedule.Run, expected: number, fresh: number): void {
  const disk = made.disks.find(({ disk }) => disk === diskName)
  check(disk !== undefined, `no ${diskName} in ${made.name}`)
  const changed = Number(disk.changedBytes) / blockSize
  const read = Number(disk.readBytes)
  const stored = Number(disk.storedBytes)
  check(changed === expected, `reported ${changed} blocks, written ${expected}`)
  check(read <= expected * blockSize * 1.01, `read ${read} bytes for ${expected} blocks`)
  const storedMax = fresh * blockSize + mapSizeMax
  check(stored <= storedMax, `stored ${stored} bytes, more than ${storedMax}`)
}

/** Random bytes, so that nothing compresses and no two blocks are alike. */
async function write(lab: Lab, blocks: number[]): Promise<void> {
  const loop = `for b in ${blocks.join(' ')}; do
    dd if=/dev/urandom of=/dev/vda bs=64k count=1 seek=$b oflag=direct 2>/dev/null || exit 1
  done`
  await lab.guest.sh(loop, 120_000)
}

export const tracking: Scenario = {
  name: 'tracking',
  summary: 'N known blocks written: N reported, read and stored',
  runsFull: 20,
  runsReduced: 2,
  run,
}
