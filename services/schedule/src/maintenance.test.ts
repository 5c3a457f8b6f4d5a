import { BackupError } from '@blockferry/errors'
import { catalog, durationFromMs, retention, schedule } from '@blockferry/proto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { Kind, State } from './run_row.ts'
import { ended, eventually, Site } from './site.ts'

const hour = 3_600_000

let site: Site
let client: Awaited<ReturnType<Site['schedule']>>

beforeAll(async () => {
  site = await Site.open()
  await site.begin()
  client = await site.schedule()
})
afterAll(async () => {
  await site?.end()
  await site?.close()
})
afterEach(async () => {
  maintain({})
  await eventually('the end of all runs', async () =>
    (await runs()).every(({ state }) => state === State.SUCCEEDED),
  )
  await site.forget()
})

const maintain = (given: Partial<catalog.Maintenance>, createTime?: Date) => {
  const maintenance = catalog.Maintenance.fromPartial(given)
  site.world.repository = { ...site.world.repository, maintenance, createTime }
}
const runs = async () =>
  (await client.listRuns({ vm: '', activeOnly: false, pageSize: 0, pageToken: '' })).runs
const kinds = async () => (await runs()).map(({ kind }) => kind).sort()
const looks = () => site.world.calls.filter((call) => call === 'listRepositories').length

/** Waits until maintenance was looked at three more times. */
async function lookedAt(): Promise<void> {
  const before = looks()
  await eventually('three looks', () => looks() >= before + 3)
}

/** Puts all runs so far back in time. */
const age = (ms: number) =>
  site.pool.query(
    `UPDATE schedule.runs SET create_time = create_time - $1::bigint * interval '1 millisecond'`,
    [ms],
  )

describe('maintenance', () => {
  it('collects and verifies once when it is due, and again after the repeat', async () => {
    const day = { collectRepeatDuration: durationFromMs(24 * hour) }
    maintain({ ...day, verifyRepeatDuration: durationFromMs(48 * hour) }, new Date(0))
    await eventually('both', async () => (await runs()).length === 2)
    await lookedAt()
    expect(await kinds()).toEqual([Kind.VERIFY, Kind.COLLECT].sort())
    await age(25 * hour)
    await eventually('another', async () => (await runs()).length === 3)
    await lookedAt()
    expect(await kinds()).toEqual([Kind.VERIFY, Kind.COLLECT, Kind.COLLECT].sort())
  })

  it('leaves a young repository and one that is maintained by hand alone', async () => {
    const hourly = { collectRepeatDuration: durationFromMs(hour) }
    maintain(hourly, new Date(Date.now() - hour / 2))
    await lookedAt()
    maintain({}, new Date(0))
    await lookedAt()
    expect(await runs()).toEqual([])
  })

  it('counts from a collection by hand, not from a dry run or a verification of one backup', async () => {
    const byHand = {
      repository: 'repositories/nightly',
      undoDuration: undefined,
      requestId: '',
      bytesPerSecond: 0n,
    }
    const { run } = await client.startCollect({ ...byHand, dryRun: false })
    await ended(client, run)
    await ended(client, (await client.startCollect({ ...byHand, dryRun: true })).run)
    maintain({ collectRepeatDuration: durationFromMs(hour) }, new Date(0))
    await lookedAt()
    expect(await runs()).toHaveLength(2)
    await site.pool.query(
      `UPDATE schedule.runs SET create_time = create_time - interval '2 hours' WHERE run_id = $1`,
      [run?.name.replace('runs/', '')],
    )
    await eventually('a third', async () => (await runs()).length === 3)
  })

  it('is done although the clock was ahead when the last one, or the repository, was made', async () => {
    const hourly = { collectRepeatDuration: durationFromMs(hour) }
    maintain(hourly, new Date(Date.now() + 1_000 * hour))
    await eventually('one', async () => (await runs()).length === 1)
    await ended(client, (await runs())[0])
    await age(-1_000 * hour)
    maintain(hourly, new Date(0))
    await eventually('another', async () => (await runs()).length === 2)
    await lookedAt()
    expect(await runs()).toHaveLength(2)
  })

  it('shows what cannot be queued as failed, does the rest, and tries again after an hour', async () => {
    const lost = new BackupError('REPOSITORY_MISSING', 'read /repository: mount it')
    site.world.interfere = (moment, method) => {
      if (moment === 'before' && method === 'getRepository') throw lost
    }
    const repeats = { collectRepeatDuration: durationFromMs(24 * hour) }
    maintain({ ...repeats, verifyRepeatDuration: durationFromMs(24 * hour) }, new Date(0))
    await eventually('both', async () => (await runs()).length === 2)
    await lookedAt()
    for (const run of await runs()) await ended(client, run)
    const states = Object.fromEntries((await runs()).map(({ kind, state }) => [kind, state]))
    expect(states).toEqual({ [Kind.COLLECT]: State.FAILED, [Kind.VERIFY]: State.SUCCEEDED })
    site.world.interfere = () => {}
    await age(2 * hour)
    await eventually('another collection', async () => (await runs()).length === 3)
    await lookedAt()
    expect(await kinds()).toEqual([Kind.VERIFY, Kind.COLLECT, Kind.COLLECT].sort())
    maintain({})
    for (const run of await runs()) await ended(client, run)
    await site.pool.query('TRUNCATE schedule.runs')
  })

  it('collects what the catalog cannot look at for want of a key', async () => {
    site.world.interfere = (moment, method) => {
      if (moment === 'before' && method === 'rebuildCatalog') {
        throw new BackupError('KEY_MISSING', 'open repository /repository: it is encrypted')
      }
    }
    const request = { repository: 'repositories/nightly', undoDuration: undefined, requestId: '' }
    const { run } = await client.startCollect({ ...request, bytesPerSecond: 0n, dryRun: false })
    expect((await ended(client, run)).state).toBe(State.SUCCEEDED)
    site.world.interfere = () => {}
    await site.pool.query('TRUNCATE schedule.runs')
  })

  it('queues each once, however many services look', async () => {
    await using other = await site.schedule('other')
    maintain({ collectRepeatDuration: durationFromMs(24 * hour) }, new Date(0))
    await eventually('one', async () => (await runs()).length > 0)
    await lookedAt()
    await lookedAt()
    expect(await runs()).toHaveLength(1)
    expect(
      (await other.listRuns({ vm: '', activeOnly: false, pageSize: 0, pageToken: '' })).runs,
    ).toHaveLength(1)
  })

  it('forgets runs that ended more than 400 days ago', async () => {
    const request = { repository: '', undoDuration: undefined, dryRun: true, requestId: '' }
    for (let count = 0; count < 2; count++) {
      await ended(client, (await client.startCollect({ ...request, bytesPerSecond: 0n })).run)
    }
    const [old, recent] = await runs()
    const put = (days: number, name = '') =>
      site.pool.query(
        `UPDATE schedule.runs SET end_time = now() - $1::int * interval '1 day' WHERE run_id = $2`,
        [days, name.replace('runs/', '')],
      )
    await put(401, old?.name)
    await put(399, recent?.name)
    await eventually('one of them', async () => (await runs()).length === 1)
    expect((await runs())[0]?.name).toBe(recent?.name)
  })

  it('keeps removed backups as long as the repository says', async () => {
    maintain({ undoDuration: durationFromMs(5 * hour) })
    const request = {
      repository: '',
      undoDuration: undefined,
      dryRun: false,
      requestId: '',
      bytesPerSecond: 0n,
    }
    await ended(client, (await client.startCollect(request)).run)
    const other = { ...request, undoDuration: durationFromMs(0) }
    await ended(client, (await client.startCollect(other)).run)
    expect(site.world.undoDurations.slice(-2)).toEqual([
      durationFromMs(5 * hour),
      durationFromMs(0),
    ])
  })
})

describe('a policy that is due', () => {
  const policy = schedule.Policy.fromPartial({
    vms: ['vm1'],
    repository: 'repositories/nightly',
    repeatDuration: durationFromMs(hour),
  })
  const makeDue = () =>
    site.pool.query("UPDATE schedule.policies SET next_run_time = now() - interval '1 second'")

  it('applies its retention after its backups', async () => {
    site.world.movingMs = 300
    const keeps = retention.Retention.fromPartial({ keepLast: 1, timeZone: 'UTC' })
    const request = { policyId: 'p', policy: { ...policy, retention: keeps }, requestId: '' }
    await client.createPolicy(request)
    await makeDue()
    await eventually('both runs', async () => (await runs()).length === 2)
    for (const run of await runs()) await ended(client, run)
    const [retained, backedUp] = (await runs()).sort((one, other) => other.kind - one.kind)
    expect([backedUp?.kind, retained?.kind]).toEqual([Kind.BACKUP, Kind.RETAIN])
    expect(retained?.startTime?.getTime()).toBeGreaterThan(backedUp?.endTime?.getTime() ?? Infinity)
  })

  it('moves on, and shows failed runs, when its repository cannot be had', async () => {
    const keeps = retention.Retention.fromPartial({ keepLast: 1, timeZone: 'UTC' })
    await client.createPolicy({
      policyId: 'p',
      policy: { ...policy, retention: keeps },
      requestId: '',
    })
    const lost = new BackupError('REPOSITORY_MISSING', 'read /repository: mount it')
    site.world.interfere = (moment, method) => {
      if (moment === 'before' && method === 'getRepository') throw lost
    }
    await makeDue()
    await eventually('both runs', async () => (await runs()).length === 2)
    await lookedAt()
    site.world.interfere = () => {}
    const failed = await runs()
    expect(failed.map(({ kind }) => kind).sort()).toEqual([Kind.BACKUP, Kind.RETAIN])
    for (const { state, error } of failed) {
      expect([state, error?.reason]).toEqual([State.FAILED, 'REPOSITORY_MISSING'])
    }
    const { policy: moved } = await client.getPolicy({ name: 'policies/p' })
    expect(moved?.nextRunTime?.getTime()).toBeGreaterThan(Date.now() + hour / 2)
    await site.pool.query('TRUNCATE schedule.runs')
  })

  it('removes nothing by rules that were taken away while the run waited', async () => {
    const keeps = retention.Retention.fromPartial({ keepLast: 1, timeZone: 'UTC' })
    await client.createPolicy({
      policyId: 'p',
      policy: { ...policy, retention: keeps },
      requestId: '',
    })
    let planned = false
    site.world.plan = () => {
      planned = true
      return { decisions: [], nextPageToken: '' }
    }
    site.world.movingMs = 500
    await makeDue()
    await eventually('both runs', async () => (await runs()).length === 2)
    await client.deletePolicy({ name: 'policies/p' })
    for (const run of await runs()) await ended(client, run)
    expect(planned).toBe(false)
  })

  it('queues no retention when it keeps everything', async () => {
    await client.createPolicy({ policyId: 'p', policy, requestId: '' })
    await makeDue()
    await eventually('the backup', async () => (await runs()).length === 1)
    await lookedAt()
    expect(await kinds()).toEqual([Kind.BACKUP])
  })
})
