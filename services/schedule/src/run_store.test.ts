import { backup, schedule } from '@blockferry/proto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { Kind, type RunRow, State } from './run_row.ts'
import { RunStore, type Unfinished } from './run_store.ts'
import { Site } from './site.ts'

let site: Site
let store: RunStore

beforeAll(async () => {
  site = await Site.open()
  await site.begin()
  await site.schedule('idle', { runsMax: 0 })
  store = new RunStore(site.pool)
})
afterAll(async () => {
  await site?.end()
  await site?.close()
})
afterEach(() => site.forget())

const everything = (unfinished: Unfinished[]) => unfinished.map(({ runId }) => runId)
const failure = { reason: 'CANCELLED', message: 'asked', metadata: {} }

async function insert(id: string, vm: string | null = id) {
  return await store.insert({
    id,
    requestKey: null,
    kind: Kind.BACKUP,
    state: State.QUEUED,
    vmIdentity: vm ?? '',
    vmDisplayName: vm ?? '',
    host: '',
    repository: 'repositories/r',
    vmTaken: vm,
    detail: schedule.Run.fromPartial({ level: backup.Level.FULL }),
    plan: { repositoryFolder: '/r', repositoryId: '0' },
  })
}

async function claimOne(): Promise<RunRow> {
  const [row] = await store.claim('me', everything)
  if (!row) throw new Error('nothing was claimed')
  return row
}

describe('RunStore', () => {
  it('lets only the newest claim change a run', async () => {
    await insert('a')
    const older = await claimOne()
    const newer = await claimOne()
    expect(newer.tokenNumber).toBeGreaterThan(older.tokenNumber)
    expect(await store.beat('a', older.tokenNumber)).toBeNull()
    expect(await store.save('a', older.tokenNumber, { state: State.FAILED })).toBeNull()
    await store.giveBack('a', older.tokenNumber)
    expect(await store.beat('a', newer.tokenNumber)).toMatchObject({ cancelRequested: false })
    const saved = await store.save('a', newer.tokenNumber, { state: State.MOVING })
    expect(saved).toMatchObject({ state: State.MOVING, attemptCount: 2 })
  })

  it('changes nothing of a run that has ended', async () => {
    await insert('a')
    const { tokenNumber } = await claimOne()
    const last = await store.save('a', tokenNumber, { state: State.SUCCEEDED })
    expect(last?.endTime).toBeInstanceOf(Date)
    expect(await store.save('a', tokenNumber, { state: State.FAILED })).toBeNull()
    expect(await store.requestCancel('a', failure)).toBeNull()
    expect(await store.claim('me', everything)).toEqual([])
  })

  it('enters a state for good only when nobody asked the run to stop', async () => {
    await insert('a')
    const { tokenNumber } = await claimOne()
    expect(await store.requestCancel('a', failure)).toMatchObject({ cancelRequested: true })
    expect(await store.save('a', tokenNumber, { state: State.COMMITTING }, true)).toBeNull()
    expect((await store.find('a'))?.state).toBe(State.QUEUED)
    expect(await store.save('a', tokenNumber, { state: State.CANCELLED })).not.toBeNull()
  })

  it('claims no run twice when many ask at once', async () => {
    for (let index = 0; index < 10; index++) await insert(`r${index}`)
    const free = (unfinished: Unfinished[]) =>
      unfinished.filter(({ holder }) => holder === null).map(({ runId }) => runId)
    const claimed = await Promise.all(['a', 'b', 'c', 'd'].map((name) => store.claim(name, free)))
    expect(claimed.flat().map(({ id }) => id)).toHaveLength(10)
    expect(claimed.flat().map(({ attemptCount }) => attemptCount)).toEqual(Array(10).fill(1))
  })

  it('draws one incarnation per repository however many ask at once', async () => {
    let drawn = 0n
    const draw = async () => ++drawn
    const asked = Array.from({ length: 5 }, () => store.incarnation('x', draw))
    expect(await Promise.all(asked)).toEqual(Array(5).fill(1n))
    expect(await store.incarnation('y', draw)).toBe(2n)
  })

  it('keeps point and plan as they were given', async () => {
    await insert('a')
    const { tokenNumber, plan } = await claimOne()
    expect(plan).toEqual({ repositoryFolder: '/r', repositoryId: '0' })
    await store.save('a', tokenNumber, { pointIds: ['0123456789ab'], point: null })
    const again = await claimOne()
    expect(again).toMatchObject({ pointIds: ['0123456789ab'], point: null })
  })
})
