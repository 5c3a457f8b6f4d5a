// The guest writes all the time. It is never frozen or paused for long, whatever happens
// to our processes, to its agent, or to the fleece store.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { monotonicMs, sleep } from '@blockferry/core'
import { backup, msFromDuration, schedule } from '@blockferry/proto'
import { fileSystemDamage, Lab, Random, type ServiceName } from '@blockferry/testkit'
import { check, median, type Row, type Scenario, type ScenarioOptions, Tally } from './row.ts'
import { Watcher, watchMonitor } from './watcher.ts'

const run$ = promisify(execFile)
const pauseMsMax = 50
const freezeMsMax = 1_000
const heldMsMax = 10_000
/** From the call of BeginPoint until the thaw takes about half a second here. */
const windowMs = 900
const cleanMsMax = 60_000

async function run({ runs, seed, folder, tell }: ScenarioOptions): Promise<Row[]> {
  const random = new Random(seed)
  const vm = join(folder, 'vms', 'web01')
  let begun = Promise.withResolvers<void>()
  await using lab = await Lab.start({
    folder,
    guest: { append: 'writer=1', qemuArguments: watchMonitor(vm) },
    hooks: {
      snapshot: {
        before: (method) => {
          if (method === 'beginPoint') begun.resolve()
        },
      },
    },
  })
  await using watcher = await Watcher.start(vm)
  const rows: Row[] = [await measure(lab, Math.max(2, Math.min(20, runs)), seed, tell)]

  const faults: { service: ServiceName; signal: 'SIGKILL' | 'SIGSTOP' }[] = []
  for (const service of ['snapshot', 'schedule', 'move'] as const) {
    for (const signal of ['SIGKILL', 'SIGSTOP'] as const) faults.push({ service, signal })
  }
  const tallies = faults.map(
    ({ service, signal }) => new Tally('freeze', `${signal} ${service}`, seed),
  )
  let worst = { writeGapMs: 0, pauseMs: 0 }
  for (let index = 0; index < runs; index++) {
    const which = index % faults.length
    const { service, signal } = faults[which] as (typeof faults)[0]
    const delayMs = random.below(windowMs)
    tell(`${signal} ${service} ${delayMs} ms after the point was asked for`)
    await (tallies[which] as Tally).try(`after ${delayMs} ms`, async () => {
      begun = Promise.withResolvers<void>()
      watcher.take()
      const name = await lab.startBackup(backup.Level.INCREMENTAL)
      await begun.promise
      await sleep(delayMs)
      await lab.stand.signal(service, signal)
      await sleep(signal === 'SIGSTOP' ? heldMsMax + 1_000 : 500)
      if (signal === 'SIGSTOP') await lab.stand.signal(service, 'SIGCONT')
      else await lab.stand.startService(service)
      await lab.stand.runEnd(name, 90_000)
      await watcher.untilWriting(heldMsMax)
      const watched = watcher.take()
      worst = {
        writeGapMs: Math.max(worst.writeGapMs, watched.writeGapMs),
        pauseMs: Math.max(worst.pauseMs, watched.pauseMs),
      }
      check(watched.writeGapMs < heldMsMax, `a write waited ${watched.writeGapMs} ms`)
      check(watched.pauseMs < heldMsMax, `paused ${watched.pauseMs} ms`)
      check((await watcher.status()) === 'running', 'the VM does not run')
      await noPoints(lab)
      return true
    })
  }
  for (const tally of tallies) {
    rows.push(
      tally.row({
        write_gap_ms_max: Math.round(worst.writeGapMs),
        pause_ms_max: Math.round(worst.pauseMs),
      }),
    )
  }
  rows.push(
    await brokenAgent(lab, watcher, 'freeze hook hangs', 'echo hang 40 >/run/hook-mode', seed),
  )
  // The hook returns at last, and the agent has frozen for nobody.
  await lab.guest.sh(
    'echo ok >/run/hook-mode; for pid in $(pgrep -f "^sleep 40"); do kill $pid; done',
  )
  await watcher.untilWriting(heldMsMax)
  rows.push(
    await brokenAgent(
      lab,
      watcher,
      'agent stops answering',
      'kill -STOP $(cat /run/qga.pid)',
      seed,
    ),
  )
  await lab.guest.sh('kill -CONT $(cat /run/qga.pid)')
  return rows
}

/** Pauses and freezes of undisturbed backups, and what e2fsck says of their restores. */
async function measure(lab: Lab, runs: number, seed: number, tell: (text: string) => void) {
  const tally = new Tally('freeze', 'undisturbed', seed)
  const pauses: number[] = []
  const freezes: number[] = []
  for (let index = 0; index < runs; index++) {
    tell(`undisturbed ${index + 1} of ${runs}`)
    await tally.try(`run ${index + 1}`, async () => {
      const made = await lab.backUp(backup.Level.INCREMENTAL)
      pauses.push(msFromDuration(made.pauseDuration))
      freezes.push(msFromDuration(made.freezeDuration))
      check(freezes.at(-1) !== 0, 'the guest was not frozen')
      const restored = await lab.restore(made.backup, 'raw')
      for (const path of restored.paths.values()) {
        const damage = await fileSystemDamage(path)
        check(damage === null, `e2fsck: ${damage}`)
      }
      await run$('rm', ['-r', restored.folder])
      return true
    })
  }
  await tally.try('pause and freeze', async () => {
    check(median(pauses) <= pauseMsMax, `paused ${median(pauses)} ms in the median`)
    check(Math.max(...freezes) <= freezeMsMax, `frozen ${Math.max(...freezes)} ms`)
    return true
  })
  return tally.row({
    pause_ms_median: median(pauses),
    pause_ms_max: Math.max(...pauses),
    freeze_ms_median: median(freezes),
    freeze_ms_max: Math.max(...freezes),
  })
}

/** The guest goes on within 10 s and only the backup fails. */
async function brokenAgent(
  lab: Lab,
  watcher: Watcher,
  what: string,
  script: string,
  seed: number,
): Promise<Row> {
  const tally = new Tally('freeze', what, seed)
  await tally.try(what, async () => {
    await lab.guest.sh(script)
    watcher.take()
    const ended = await lab.tryBackup(backup.Level.INCREMENTAL)
    await watcher.untilWriting(heldMsMax)
    const { writeGapMs, pauseMs } = watcher.take()
    check(writeGapMs < heldMsMax && pauseMs < heldMsMax, `held ${writeGapMs} and ${pauseMs} ms`)
    // An agent that does not answer at all costs the quiescing, a failed freeze the backup.
    const skipped = ended.decisions.some(({ decision }) => decision === 'QUIESCE_SKIPPED')
    check(
      ended.state === schedule.Run_State.FAILED
        ? ended.error?.reason === 'QUIESCE_FAILED'
        : skipped,
      `ended with ${ended.error?.reason ?? 'success and no word of it'}`,
    )
    await noPoints(lab)
    return true
  })
  return tally.row()
}

/** Waits until no point is left on the host, as after every run. */
export async function noPoints(lab: Lab): Promise<void> {
  const startMs = monotonicMs()
  for (;;) {
    const { points } = await lab.stand.snapshot.listPoints({ pageSize: 0, pageToken: '' })
    if (points.length === 0) return
    check(monotonicMs() - startMs < cleanMsMax, `${points.length} points remain after 60 s`)
    await sleep(200)
  }
}

export const freeze: Scenario = {
  name: 'freeze',
  summary: 'the guest is never held for long: kill -9, SIGSTOP, hooks, agent',
  runsFull: 54,
  runsReduced: 3,
  run,
}
