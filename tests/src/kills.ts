// A process of ours is killed with -9 between each two steps of a backup and started
// again. The next run picks the base that the bitmap rule names, every listed backup still
// restores to what nbdcopy read, and no snapshot remains.
import { monotonicMs, sleep } from '@blockferry/core'
import { backup, move, schedule } from '@blockferry/proto'
import { type GateHooks, Lab, Random, type ServiceName } from '@blockferry/testkit'
import { noPoints } from './freeze.ts'
import { check, type Row, type Scenario, type ScenarioOptions, Tally } from './row.ts'

/** Where the kill happens: a call of schedule's, before it, after it or in the middle of it. */
interface Step {
  name: string
  service: ServiceName
  gate: 'snapshot' | 'move'
  method: string
  when: 'before' | 'after' | 'during'
  /** Spread of a kill in the middle. */
  spreadMs: number
}

const step = (
  name: string,
  service: ServiceName,
  gate: Step['gate'],
  method: string,
  when: Step['when'],
  spreadMs = 0,
): Step => ({ name, service, gate, method, when, spreadMs })

const steps: Step[] = [
  step('point: snapshot', 'snapshot', 'snapshot', 'beginPoint', 'during', 900),
  step('point: schedule', 'schedule', 'snapshot', 'beginPoint', 'during', 900),
  step('export: snapshot', 'snapshot', 'snapshot', 'beginPoint', 'after'),
  step('export: schedule', 'schedule', 'snapshot', 'beginPoint', 'after'),
  step('packs: move', 'move', 'move', 'startBackup', 'during', 700),
  step('packs: schedule', 'schedule', 'move', 'startBackup', 'during', 700),
  step('manifest: move, before', 'move', 'move', 'commitBackup', 'before'),
  step('manifest: move, during', 'move', 'move', 'commitBackup', 'during', 60),
  step('manifest: schedule, after', 'schedule', 'move', 'commitBackup', 'after'),
  step('release: schedule', 'schedule', 'snapshot', 'releasePoint', 'before'),
  step('release: snapshot', 'snapshot', 'snapshot', 'releasePoint', 'before'),
  step('drop of bitmaps: snapshot', 'snapshot', 'snapshot', 'releasePoint', 'during', 150),
]

/** Kills once, when schedule makes the armed call. */
class Trigger {
  fired = false
  #armed: { step: Step; kill: () => Promise<void>; delayMs: number } | null = null

  arm(step: Step, delayMs: number, kill: () => Promise<void>): void {
    this.fired = false
    this.#armed = { step, kill, delayMs }
  }

  disarm(): void {
    this.#armed = null
  }

  hooks(gate: Step['gate']): GateHooks {
    const fire = async (method: string, when: 'before' | 'after') => {
      const armed = this.#armed
      if (armed?.step.gate !== gate || armed.step.method !== method) return
      if (armed.step.when === 'during' && when === 'before') {
        this.#armed = null
        // Not awaited: the call goes on and the kill meets it on its way.
        void sleep(armed.delayMs).then(armed.kill)
        this.fired = true
      } else if (armed.step.when === when) {
        this.#armed = null
        this.fired = true
        await armed.kill()
      }
    }
    return { before: (method) => fire(method, 'before'), after: (method) => fire(method, 'after') }
  }
}

async function run({ runs, seed, folder, tell }: ScenarioOptions): Promise<Row[]> {
  const random = new Random(seed)
  const trigger = new Trigger()
  await using lab = await Lab.start({
    folder,
    referenceAt: 'begin',
    hooks: { snapshot: trigger.hooks('snapshot'), move: trigger.hooks('move') },
  })
  const proven = new Set<string>()
  await lab.backUp(backup.Level.FULL)
  const tallies = steps.map(({ name }) => new Tally('kills', name, seed))
  for (let index = 0; index < runs; index++) {
    const which = index % steps.length
    const at = steps[which] as Step
    const level = index % 3 === 2 ? backup.Level.FULL : backup.Level.INCREMENTAL
    const delayMs = random.below(at.spreadMs + 1)
    tell(`${index + 1} of ${runs}: ${at.name}, ${delayMs} ms, ${backup.levelToJSON(level)}`)
    await (tallies[which] as Tally).try(`kill ${index + 1} after ${delayMs} ms`, async () => {
      await lab.guest.sh(`dd if=/dev/urandom of=/data/0/k${index % 4} bs=64k count=9 && sync`)
      await killOnce(lab, trigger, at, delayMs, level)
      await noPoints(lab)
      await nextPicksTheBase(lab)
      await proveListed(lab, proven)
      return trigger.fired
    })
    trigger.disarm()
  }
  const everything = new Tally('kills', 'every listed backup, at the end', seed)
  await everything.try('restore', async () => {
    proven.clear()
    await proveListed(lab, proven)
    return true
  })
  return [...tallies.map((tally) => tally.row()), everything.row({ backups: proven.size })]
}

async function killOnce(
  lab: Lab,
  trigger: Trigger,
  at: Step,
  delayMs: number,
  level: backup.Level,
): Promise<void> {
  const killed = Promise.withResolvers<void>()
  trigger.arm(at, delayMs, async () => {
    await lab.stand.signal(at.service, 'SIGKILL')
    killed.resolve()
  })
  const name = await lab.startBackup(level)
  await Promise.race([killed.promise, sleep(30_000)])
  check(trigger.fired, 'the step was never reached')
  await lab.stand.startService(at.service)
  await lab.stand.runEnd(name, 90_000)
}

/** The newest committed manifest is the base: its bitmap records, as the rule says. */
async function nextPicksTheBase(lab: Lab): Promise<void> {
  const before = await manifests(lab)
  const newest = before.at(-1)
  const made = await lab.backUp(backup.Level.INCREMENTAL)
  const { backup: stored } = await lab.stand.catalog.getBackup({ name: made.backup })
  const base = stored?.baseBackup ?? ''
  check(base === newest, `the base is ${base || 'none'}, the newest committed backup is ${newest}`)
  const decisions = made.decisions.map(({ decision }) => decision)
  check(decisions.includes('CHANGED_BLOCKS_USED'), `read everything: ${decisions}`)
}

/** Ids of the committed backups by their manifests, oldest first. */
async function manifests(lab: Lab): Promise<string[]> {
  const { backups } = await lab.stand.move.listManifests(
    move.ListManifestsRequest.create({
      folder: lab.repositoryFolder,
      vmIdentity: lab.uuid,
      pageSize: 1000,
    }),
  )
  const ordered = [...backups].sort((a, b) => Number(a.sequence - b.sequence))
  return ordered.map(({ name }) => name.split('/').at(-1) ?? '')
}

/** Every backup that is listed restores to what nbdcopy read from its point. */
async function proveListed(lab: Lab, proven: Set<string>): Promise<void> {
  const { backups } = await lab.stand.catalog.listBackups({
    parent: '',
    vm: '',
    showRemoved: false,
    pageSize: 1000,
    pageToken: '',
  })
  for (const { name, pointId } of backups) {
    if (proven.has(name)) continue
    const references = lab.references.get(pointId)
    check(references !== undefined, `${name}: its point ${pointId} was never seen`)
    const different = await lab.differences(name, references)
    check(different.length === 0, `${name}: ${different} restored otherwise than nbdcopy read it`)
    proven.add(name)
  }
}

/**
 * QEMU is killed while a disk is read, and a mover is stopped until the next run has its
 * point: in neither case does a backup show two instants.
 */
async function runInstants({ runs, seed, folder, tell }: ScenarioOptions): Promise<Row[]> {
  const random = new Random(seed)
  let moving = Promise.withResolvers<void>()
  let stopMover = async () => {}
  await using lab = await Lab.start({
    folder,
    referenceAt: 'begin',
    guest: { append: 'writer=1' },
    hooks: {
      move: {
        after: async (method) => {
          if (method !== 'startBackup') return
          // Before schedule knows that the session began: it cannot be at its commit already.
          await stopMover()
          moving.resolve()
        },
      },
    },
  })
  await lab.backUp(backup.Level.FULL)
  const dead = new Tally('instants', 'QEMU killed in mid-read', seed)
  const late = new Tally('instants', 'mover stopped until the next point', seed)
  const proven = new Set<string>()
  for (let index = 0; index < runs; index++) {
    tell(`${index + 1} of ${runs}`)
    await lab.guest.sh(`dd if=/dev/urandom of=/data/0/i${index % 3} bs=1M count=48 && sync`, 60_000)
    moving = Promise.withResolvers<void>()
    stopMover = async () => {
      stopMover = async () => {}
      if (index % 2 === 1) await lab.stand.signal('move', 'SIGSTOP')
    }
    const name = await lab.startBackup(backup.Level.FULL)
    await moving.promise
    if (index % 2 === 0) {
      await dead.try(`kill ${index + 1}`, async () => {
        await sleep(random.below(150))
        await lab.guest.kill()
        const ended = await lab.stand.runEnd(name)
        await lab.bootAgain()
        await proveListed(lab, proven)
        await lab.backUp(backup.Level.INCREMENTAL)
        await proveListed(lab, proven)
        return ended.state === schedule.Run_State.FAILED
      })
    } else {
      await late.try(`stop ${index + 1}`, async () => {
        await using _ = { [Symbol.asyncDispose]: () => lab.stand.signal('move', 'SIGCONT') }
        await lab.stand.schedule.cancelRun({ name })
        const startMs = monotonicMs()
        while (
          (await lab.stand.snapshot.listPoints({ pageSize: 0, pageToken: '' })).points.length
        ) {
          check(monotonicMs() - startMs < 90_000, 'the stopped run still holds its point')
          await sleep(100)
        }
        const started = lab.startBackup(backup.Level.INCREMENTAL).catch(() => null)
        await sleep(1_000)
        await lab.stand.signal('move', 'SIGCONT')
        const next = (await started) ?? (await lab.startBackup(backup.Level.INCREMENTAL))
        const ended = await lab.stand.runEnd(next)
        check(ended.state === schedule.Run_State.SUCCEEDED, `next: ${ended.error?.message}`)
        await proveListed(lab, proven)
        return true
      })
    }
  }
  return [dead.row(), late.row()]
}

export const kills: Scenario = {
  name: 'kills',
  summary: 'kill -9 between each two steps of a backup',
  runsFull: 72,
  runsReduced: 3,
  run,
}

export const instants: Scenario = {
  name: 'instants',
  summary: 'no backup shows two instants: QEMU killed, mover stopped',
  runsFull: 10,
  runsReduced: 2,
  run: runInstants,
}
