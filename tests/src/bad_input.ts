// Bad input: each refusal has a stable reason and says what to do, nothing is left behind, the
// VM runs, and the next ordinary backup succeeds.
//
// Two cases are shown elsewhere, since no product option brings them about: a fleece store that
// hangs (guest_qemu_driver.test.ts) and the deadline of a run (run.test.ts of schedule).
import { join } from 'node:path'
import { monotonicMs } from '@blockferry/core'
import { backup } from '@blockferry/proto'
import { type GuestDisk, Lab, Random } from '@blockferry/testkit'
import { badCalls } from './bad_calls.ts'
import { badImages } from './bad_images.ts'
import { badMachines } from './bad_machines.ts'
import { badMoments } from './bad_moments.ts'
import { badNames } from './bad_names.ts'
import { badRepositories } from './bad_repositories.ts'
import type { Case, Ground, Refusal } from './ground.ts'
import { Hold } from './hold.ts'
import { check, type Row, type Scenario, type ScenarioOptions, Tally } from './row.ts'
import { traces, untilGone, withWatchMonitor } from './trace.ts'
import { watchMonitor } from './watcher.ts'

const mebibyte = 1024 * 1024
/** Of the last backup, of the one before it, and of the last full. */
const bitmapsMax = 3
const cases = [
  ...badMachines,
  ...badNames,
  ...badImages,
  ...badRepositories,
  ...badCalls,
  ...badMoments,
]

const smallDisks = (folder: string): GuestDisk[] => [
  { path: join(folder, 'system.qcow2'), format: 'qcow2', sizeBytes: 64 * mebibyte },
  {
    ...{ path: join(folder, 'data.qcow2'), format: 'qcow2', sizeBytes: 32 * mebibyte },
    ...{ pluggable: true, filesystem: false },
  },
]

async function run({ runs, seed, folder, tell }: ScenarioOptions): Promise<Row[]> {
  const hold = new Hold()
  await using lab = await Lab.start({
    folder,
    disks: smallDisks,
    guest: { append: 'writer=1', qemuArguments: watchMonitor(join(folder, 'vms', 'web01')) },
    hooks: { snapshot: hold.hooks, move: hold.hooks },
  })
  // Blocks that can be overwritten, and more than a small repository holds.
  await lab.guest.sh('dd if=/dev/urandom of=/data/0/old bs=64k count=128 && sync', 60_000)
  await lab.backUp(backup.Level.FULL)
  const random = new Random(seed)
  const rows: Row[] = []
  for (const one of cases) {
    const tally = new Tally('bad-input', one.name, seed)
    const startMs = monotonicMs()
    let told = ''
    for (let round = 1; round <= runs; round++) {
      tell(`${one.name}, ${round} of ${runs}`)
      await tally.try(`run ${round}`, async () => {
        const refusal = await tryCase({ lab, hold, random, round }, one)
        told = refusal?.message ?? ''
        return refusal !== null
      })
    }
    const runMs = Math.round((monotonicMs() - startMs) / runs)
    rows.push(tally.row({ run_ms: runMs, reason: one.expects?.reason ?? 'none', told }))
  }
  return rows
}

async function tryCase(ground: Ground, one: Case): Promise<Refusal | null> {
  const { lab } = ground
  const before = await traces(lab)
  const refusal = await one.work(ground)
  if (!refusal) return null
  const told = `${refusal.reason}: ${refusal.message}`
  check(refusal.reason === (one.expects?.reason ?? ''), told)
  check(!one.expects || one.expects.says.test(refusal.message), `it does not help: ${told}`)
  // A backup that was made has its manifest, and the bitmaps that the next one counts from.
  const made = one.expects === null || one.makesBackup === true
  const stays = (trace: string) =>
    (made && /^(bitmap |file repository\/manifests\/)/.test(trace)) ||
    (one.reboots === true && trace.startsWith('bitmap '))
  await untilGone(lab, before, (trace) => !stays(trace) && !isCheckpoint(trace))
  const { status } = await withWatchMonitor(lab, (qmp) =>
    qmp.execute<{ status: string }>('query-status'),
  )
  check(status === 'running', `the VM is ${status}`)
  await lab.guest.sh('sync')
  await lab.backUp(backup.Level.INCREMENTAL)
  await nothingPilesUp(lab)
  return refusal
}

// A checkpoint outlives its session, so that a mover that was restarted goes on at it. Of a run
// that failed it is removed by the next session of the VM.
const isCheckpoint = (trace: string) => trace.endsWith('.checkpoint')

/** What a later backup has to remove: checkpoints, and bitmaps that nothing counts from. */
async function nothingPilesUp(lab: Lab): Promise<void> {
  const now = await traces(lab)
  check(!now.some(isCheckpoint), `checkpoints remain: ${now.filter(isCheckpoint)}`)
  for (const disk of ['disk0', 'disk1']) {
    const bitmaps = now.filter(
      (trace) => trace.startsWith('bitmap ') && trace.endsWith(` of ${disk}`),
    )
    check(bitmaps.length <= bitmapsMax, `${bitmaps.length} bitmaps remain: ${bitmaps}`)
  }
}

export const badInput: Scenario = {
  name: 'bad-input',
  summary: 'refused with a reason and advice, and nothing is left behind',
  runsFull: 3,
  runsReduced: 1,
  run,
}
