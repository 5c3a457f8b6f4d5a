// The plan over a real PostgreSQL and a double of the mover, whose repository holds what a test
// says: point times and damage that real backups do not have on demand.
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { newLog } from '@blockferry/core'
import { launchPostgres, openPool, type Pool, type RunningPostgres } from '@blockferry/postgres'
import { catalog, durationFromMs, move, backup as proto, retention } from '@blockferry/proto'
import { connect, type Handlers, type RpcClient, type RunningService, serve } from '@blockferry/rpc'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { catalogConfig, startCatalog } from './index.ts'

const nowMs = Date.parse('2026-11-20T15:00:00Z')
const hourMs = 3_600_000
const parent = 'repositories/r'
const policy = 'policies/p'

let folder: string
let postgres: RunningPostgres
let pool: Pool
let mover: RunningService
let service: RunningService
let calls: RpcClient<catalog.CatalogServiceServer>
let repositoryId: string
/** What can be read in the repository. */
let readable: proto.Backup[]

beforeAll(async () => {
  folder = await mkdtemp('/tmp/bf-plan-')
  postgres = await launchPostgres({ dataFolder: join(folder, 'pg'), fsync: false })
  pool = openPool(postgres.url)
  mover = await serve<move.MoveServiceServer>({
    address: `unix:${folder}/move.sock`,
    name: 'blockferry.move.v1.MoveService',
    definition: move.MoveServiceService,
    handlers: {
      inspectRepository: async () => ({
        repository: move.RepositoryInfo.fromPartial({ repositoryId }),
      }),
      listManifests: async ({ vmIdentity }: move.ListManifestsRequest) => ({
        backups: readable
          .filter((each) => vmIdentity === '' || each.vmIdentity === vmIdentity)
          .map((each) => ({ ...each, name: each.name.replace(`${parent}/`, '') })),
        damagedManifests: [],
        nextPageToken: '',
      }),
    } as unknown as Handlers<move.MoveServiceServer>,
    log: newLog('move', 'silent'),
  })
  const address = `unix:${folder}/catalog.sock`
  const addresses = { address, moveAddress: mover.address, databaseUrl: postgres.url }
  service = await startCatalog(catalogConfig({ ...addresses, logLevel: 'silent' }))
  calls = connect<catalog.CatalogServiceServer>('catalog', catalog.CatalogServiceService, address)
}, 60_000)

afterAll(async () => {
  calls[Symbol.dispose]()
  await service[Symbol.asyncDispose]()
  await mover[Symbol.asyncDispose]()
  await pool.end()
  await postgres.stop()
  await rm(folder, { recursive: true, force: true })
})

beforeEach(async () => {
  readable = []
  repositoryId = 'a'.repeat(32)
  await pool.query('TRUNCATE catalog.repositories CASCADE')
  const request = {
    repositoryId: 'r',
    folder: '/r',
    adopt: true,
    requestId: '',
    passphraseFile: '',
  }
  await calls.createRepository(request)
})

/** A backup `age` hours old, in the repository and in the catalog. */
async function made(id: string, age: number, more: Partial<proto.Backup> = {}): Promise<void> {
  const backup = proto.Backup.fromPartial({
    ...{ name: `${parent}/backups/${id}`, vmIdentity: 'id-1', vmDisplayName: 'web', policy },
    sequence: BigInt(1000 - age),
    pointTime: new Date(nowMs - age * hourMs),
    disks: [{ disk: 'vda', sizeBytes: 100n, storedBytes: 7n }],
    ...more,
  })
  readable.push(backup)
  await calls.recordBackup({ backup })
}

const keeping = (given: object) => retention.Retention.fromPartial(given)

const plan = (given: Partial<catalog.PlanRetentionRequest> = {}) =>
  calls.planRetention({
    ...{ parent, vm: 'web', policy, retention: keeping({ keepLast: 1 }) },
    ...{ planTime: new Date(nowMs), pageSize: 0, pageToken: '', ...given },
  })

const textOf = ({ backup, reasons }: retention.RetentionDecision): string => {
  const words = reasons.map(({ kind, detail }) =>
    `${retention.retentionReason_KindToJSON(kind).replace('KIND_', '')} ${detail}`.trim(),
  )
  return [backup.split('/').at(-1), ...words].join(', ')
}
const texts = async (given?: Partial<catalog.PlanRetentionRequest>) =>
  (await plan(given)).decisions.map(textOf)

const newest = 'KEEP_NEWEST, KEEP_NEWEST_COMPLETE, KEEP_LAST 1'

describe('PlanRetention', () => {
  it('answers each backup with its verdict, its reasons and its size', async () => {
    await made('old', 48)
    await made('new', 1)
    const { KEEP, REMOVE } = retention.RetentionDecision_Verdict
    const { decisions } = await plan()
    expect(decisions.map(({ verdict }) => verdict)).toEqual([KEEP, REMOVE])
    expect(decisions[1]).toEqual({
      backup: `${parent}/backups/old`,
      vmIdentity: 'id-1',
      vmDisplayName: 'web',
      pointTime: new Date(nowMs - 48 * hourMs),
      sizeBytes: 100n,
      storedBytes: 7n,
      verdict: REMOVE,
      reasons: [{ kind: retention.RetentionReason_Kind.REMOVE_EXPIRED, detail: '' }],
    })
  })

  it('removes nothing, neither from the catalog nor from the repository', async () => {
    await made('old', 48)
    await made('new', 1)
    await plan()
    const listing = { parent, vm: '', pageSize: 0, pageToken: '', showRemoved: false }
    expect((await calls.listBackups(listing)).backups).toHaveLength(2)
    expect(readable).toHaveLength(2)
  })

  it('keeps everything without a retention', async () => {
    await made('old', 48)
    await made('new', 1)
    const everything = ['new, KEEP_EVERYTHING', 'old, KEEP_EVERYTHING']
    expect(await texts({ retention: undefined })).toEqual(everything)
  })

  it('keeps and does not count what others made', async () => {
    await made('mine', 48)
    await made('other', 24, { policy: 'policies/other' })
    await made('hand', 1, { policy: '' })
    expect(await texts()).toEqual([
      'hand, KEEP_OTHER_POLICY',
      'other, KEEP_OTHER_POLICY policies/other',
      `mine, ${newest}`,
    ])
  })

  it('keeps and does not count what the repository has no readable manifest of', async () => {
    await made('old', 48)
    await made('torn', 1)
    readable = readable.filter(({ name }) => !name.endsWith('torn'))
    expect(await texts()).toEqual(['torn, KEEP_DAMAGED', `old, ${newest}`])
  })

  it('counts what nobody recorded', async () => {
    await made('old', 48)
    await made('new', 1)
    await pool.query("DELETE FROM catalog.backups WHERE backup = 'new'")
    expect(await texts()).toEqual([`new, ${newest}`, 'old, REMOVE_EXPIRED'])
  })

  it('counts ages and the future from the time it is given, else from that of the database', async () => {
    await made('old', 48)
    await made('new', 1)
    const aged = keeping({ keepLast: 1, minimumAgeDuration: durationFromMs(72 * hourMs) })
    expect(await texts({ retention: aged })).toContain(
      'old, KEEP_MINIMUM_AGE 2026-11-21T15:00:00.000Z',
    )
    expect(await texts({ planTime: new Date(0) })).toEqual(['new, KEEP_FUTURE', 'old, KEEP_FUTURE'])
    await made('ahead', 0, { pointTime: new Date('2400-01-01T00:00:00Z') })
    expect(await texts({ planTime: undefined })).toContain('ahead, KEEP_FUTURE')
  })

  it('finds the VM by identity and by its newest name, and decides VMs of one name apart', async () => {
    await made('before', 48, { vmDisplayName: 'was-web' })
    await made('after', 1)
    await made('twin', 24, { vmIdentity: 'id-2' })
    await made('else', 24, { vmIdentity: 'id-3', vmDisplayName: 'db' })
    const own = [`after, ${newest}`, 'before, REMOVE_EXPIRED']
    expect(await texts()).toEqual([...own, `twin, ${newest}`])
    expect(await texts({ vm: 'id-1' })).toEqual(own)
    expect(await texts({ vm: 'was-web' })).toEqual([])
    expect(await texts({ vm: "' OR 1=1" })).toEqual([])
  })

  it('answers page by page', async () => {
    for (let age = 5; age > 0; age--) await made(`b${age}`, age)
    const seen: string[] = []
    let pageToken = ''
    do {
      const page = await plan({ pageSize: 2, pageToken })
      expect(page.decisions.length).toBeLessThanOrEqual(2)
      seen.push(...page.decisions.map(({ backup }) => backup.slice(-2)))
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    expect(seen).toEqual(['b1', 'b2', 'b3', 'b4', 'b5'])
  })

  it('plans nothing over another repository at the same place', async () => {
    await made('old', 48)
    repositoryId = 'b'.repeat(32)
    await expect(plan()).rejects.toMatchObject({ reason: 'REPOSITORY_MISSING' })
  })

  it.each([
    ['parent', { parent: 'r' }],
    ['vm', { vm: '' }],
    ['policy', { policy: '' }],
    ['policy', { policy: 'policies/a/b' }],
    ['retention', { retention: keeping({}) }],
    ['retention.time_zone', { retention: keeping({ keepLast: 1, timeZone: 'Mars' }) }],
    ['page_size', { pageSize: -1 }],
  ])('refuses a request naming %s', async (field, given) => {
    await expect(plan(given)).rejects.toMatchObject({
      reason: 'ARGUMENT_INVALID',
      metadata: { field },
    })
  })

  it('says that there is no such repository', async () => {
    const nowhere = { parent: 'repositories/none' }
    await expect(plan(nowhere)).rejects.toMatchObject({ reason: 'NOT_FOUND' })
  })
})
