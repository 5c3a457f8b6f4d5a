import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { sleep } from '@blockferry/core'
import { schedule, snapshot } from '@blockferry/proto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ScheduleLimits } from './config.ts'
import { ended, eventually, Site } from './site.ts'

const State = schedule.Run_State
const program = `
  import { scheduleConfig, startSchedule } from '@blockferry/schedule'
  await startSchedule(scheduleConfig(JSON.parse(process.argv[1])))
  console.log('ready')
`
let site: Site
const children = new Set<ChildProcess>()

beforeAll(async () => {
  site = await Site.open()
})
afterAll(() => site?.close())
beforeEach(() => site.begin())
afterEach(async () => {
  for (const child of children) {
    child.kill('SIGKILL')
    await exited(child)
  }
  children.clear()
  await site.end()
})

/** A schedule service in a process of its own, which can be killed and stopped. */
async function scheduleProcess(
  name: string,
  limits: Partial<ScheduleLimits> = {},
): Promise<ChildProcess> {
  const child = spawn(
    process.execPath,
    [
      '--conditions=@blockferry/source',
      '--input-type=module',
      '-e',
      program,
      JSON.stringify(site.settings(name, limits)),
    ],
    { cwd: fileURLToPath(new URL('..', import.meta.url)), stdio: ['ignore', 'pipe', 'inherit'] },
  )
  children.add(child)
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })
  for await (const line of lines) if (line === 'ready') break
  return child
}

const exited = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    child.once('exit', () => resolve())
  })

const request = (vm = 'vm1') => schedule.StartBackupRequest.fromPartial({ vm })
const decisionsOf = (run: schedule.Run) => run.decisions.map(({ decision }) => decision)

describe('a run whose process ends', () => {
  it('goes on with the same point after kill -9 and a restart', async () => {
    site.world.movingMs = 3_000
    const child = await scheduleProcess('schedule')
    using before = site.client()
    const { run } = await before.startBackup(request())
    await eventually('a session', () => site.world.sessions.size === 1)
    child.kill('SIGKILL')
    await exited(child)
    await using client = await site.schedule()
    const last = await ended(client, run)
    expect(last.error).toBeUndefined()
    expect(last).toMatchObject({ state: State.SUCCEEDED, attemptCount: 2 })
    expect(decisionsOf(last)).toContain('RESUMED')
    expect(site.world.begun).toHaveLength(1)
    expect(site.world.manifests).toMatchObject([{ pointId: site.world.begun[0] }])
  })

  it.each([
    'beginPoint',
    'startBackup',
    'confirmPoint',
    'commitBackup',
    'releasePoint',
    'recordBackup',
  ])('is finished once by another process when it dies in %s', async (method) => {
    const child = await scheduleProcess('one')
    let killed = false
    site.world.interfere = async (moment, called) => {
      if (moment !== 'after' || called !== method || killed) return
      killed = true
      child.kill('SIGKILL')
      await exited(child)
    }
    using first = site.client('one')
    const { run } = await first.startBackup(request())
    await using client = await site.schedule('two')
    const last = await ended(client, run)
    expect(killed).toBe(true)
    expect(last.error).toBeUndefined()
    expect(last).toMatchObject({ state: State.SUCCEEDED, attemptCount: 2 })
    expect(site.world.manifests).toHaveLength(1)
    // What the repository holds already is not moved again.
    const committed = ['commitBackup', 'releasePoint', 'recordBackup'].includes(method)
    const moves = site.world.calls.filter((call) => call === 'startBackup').length
    expect(moves).toBe(committed || method === 'beginPoint' ? 1 : 2)
    expect(site.world.points.size).toBe(0)
    expect(site.world.recorded).toContain(last.backup)
  })

  it('keeps the bitmaps of a backup that was still being committed when it died', async () => {
    site.world.committingMs = 2_500
    const child = await scheduleProcess('one')
    using first = site.client('one')
    const { run } = await first.startBackup(request())
    await eventually('a commit', () => site.world.calls.includes('commitBackup'))
    child.kill('SIGKILL')
    await exited(child)
    // Nobody held the point meanwhile, so the reaper took it.
    site.world.points.clear()
    await using client = await site.schedule('two')
    const last = await ended(client, run)
    expect(last.error).toBeUndefined()
    expect(last.state).toBe(State.SUCCEEDED)
    const { COMMITTED } = snapshot.PointOutcome
    const [pointId] = site.world.begun
    expect(site.world.manifests).toMatchObject([{ pointId }])
    expect(site.world.released).toEqual([{ pointId, outcome: COMMITTED }])
  })

  it('is taken up at once, with its point, after a graceful stop', async () => {
    site.world.movingMs = 1_500
    const first = await site.schedule('one', { leaseMs: 60_000 })
    const { run } = await first.startBackup(request())
    await eventually('a session', () => site.world.sessions.size === 1)
    await first[Symbol.asyncDispose]()
    expect(site.world.released).toEqual([])
    await using second = await site.schedule('two', { leaseMs: 60_000 })
    const last = await ended(second, run)
    expect(last).toMatchObject({ state: State.SUCCEEDED, attemptCount: 2 })
    expect(site.world.begun).toHaveLength(1)
  })

  it('is cancelled by whoever takes it up when that was asked meanwhile', async () => {
    site.world.movingMs = 60_000
    const child = await scheduleProcess('one')
    using first = site.client('one')
    const { run } = await first.startBackup(request())
    await eventually('a session', () => site.world.sessions.size === 1)
    child.kill('SIGKILL')
    await exited(child)
    await using client = await site.schedule('two')
    await client.cancelRun({ name: run?.name ?? '' })
    expect((await ended(client, run)).state).toBe(State.CANCELLED)
    expect(site.world.points.size).toBe(0)
    expect(site.world.manifests).toEqual([])
  })
})

describe('a process that sleeps through its lease', () => {
  it('changes nothing when it wakes: the run stays with the one that took over', async () => {
    site.world.movingMs = 2_500
    const sleeper = await scheduleProcess('one')
    using first = site.client('one')
    const { run } = await first.startBackup(request())
    await eventually('a session', () => site.world.sessions.size === 1)
    sleeper.kill('SIGSTOP')
    await using second = await site.schedule('two')
    await eventually('the take-over', async () => {
      return (await second.getRun({ name: run?.name ?? '' })).run?.attemptCount === 2
    })
    sleeper.kill('SIGCONT')
    const last = await ended(second, run)
    await sleep(300)
    expect(last).toMatchObject({ state: State.SUCCEEDED, attemptCount: 2 })
    expect((await second.getRun({ name: last.name })).run?.state).toBe(State.SUCCEEDED)
    expect(site.world.manifests).toHaveLength(1)
    expect(site.world.cancelled).toEqual([])
  })
})

describe('two processes on one database', () => {
  it('run every run once and keep the limits together', async () => {
    const limits = { runsMax: 3, runsPerHostMax: 2, runsPerRepositoryMax: 3 }
    site.world.movingMs = 60
    await using one = await site.schedule('one', limits)
    await using two = await site.schedule('two', limits)
    const vms = Array.from({ length: 24 }, (_, index) => `vm${index}`)
    for (const [index, vm] of vms.entries()) site.world.addVm(vm, `hosts/h${index % 4}`)
    let most = 0
    site.world.interfere = () => {
      most = Math.max(most, site.world.points.size)
    }
    const runs = await Promise.all(
      vms.map(async (vm, index) => (await (index % 2 ? one : two).startBackup(request(vm))).run),
    )
    const last = await Promise.all(runs.map((run) => ended(one, run)))
    expect(last.map(({ state }) => state)).toEqual(vms.map(() => State.SUCCEEDED))
    expect(last.map(({ attemptCount }) => attemptCount)).toEqual(vms.map(() => 1))
    expect(site.world.begun).toHaveLength(vms.length)
    expect(site.world.manifests).toHaveLength(vms.length)
    expect(site.world.incarnation).toBe(1n)
    expect(most).toBeGreaterThan(1)
    expect(most).toBeLessThanOrEqual(limits.runsMax)
  })

  it('queue one run per VM of a policy that is due, in one of them', async () => {
    site.world.addVm('vm2')
    await using one = await site.schedule('one')
    await using two = await site.schedule('two')
    const policy = schedule.Policy.fromPartial({
      vms: ['vm1', 'vm2', 'unknown'],
      repository: 'repositories/nightly',
      repeatDuration: { seconds: 3_600n },
    })
    await one.createPolicy({ policyId: 'nightly', policy, requestId: '' })
    await site.pool.query(
      "UPDATE schedule.policies SET next_run_time = date_trunc('milliseconds', now())",
    )
    const listed = async () =>
      (await two.listRuns({ vm: '', pageSize: 0, pageToken: '', activeOnly: false })).runs
    await eventually('three runs that ended', async () => {
      const runs = await listed()
      return runs.length >= 3 && runs.every(({ endTime }) => endTime !== undefined)
    })
    await sleep(300)
    const runs = await listed()
    expect(runs).toHaveLength(3)
    expect(runs.map(({ policy: name }) => name)).toEqual(runs.map(() => 'policies/nightly'))
    const failed = runs.filter(({ state }) => state === State.FAILED)
    expect(failed).toMatchObject([{ vmDisplayName: 'unknown', error: { reason: 'VM_NOT_FOUND' } }])
    const { policy: moved } = await one.getPolicy({ name: 'policies/nightly' })
    expect(moved?.nextRunTime?.getTime()).toBeGreaterThan(Date.now() + 3_500_000)
  })
})
