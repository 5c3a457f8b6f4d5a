import { BackupError } from '@blockferry/errors'
import { type catalog, durationFromMs, retention, schedule } from '@blockferry/proto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ended, Site } from './site.ts'

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
afterEach(() => site.forget())

const policy = (given: object = {}) =>
  schedule.Policy.fromPartial({ vms: ['vm1', 'vm2'], repository: 'repositories/nightly', ...given })
const create = (given: object) =>
  client.createPolicy({ policyId: 'p', policy: policy(given), requestId: '' })
const keeping = (given: object) => retention.Retention.fromPartial({ timeZone: 'UTC', ...given })

describe('the retention of a policy', () => {
  const all = keeping({
    ...{ keepLast: 1, keepHourly: 2, keepDaily: 3, keepWeekly: 4, keepMonthly: 5, keepYearly: 6 },
    ...{ keepTags: ['gold'], timeZone: 'Europe/Berlin' },
    minimumAgeDuration: durationFromMs(36 * 3_600_000 + 1),
  })

  it('comes back field by field, also those of single VMs', async () => {
    const vmRetentions = [{ vm: 'vm2', retention: keeping({ keepDaily: 9 }) }, { vm: 'vm1' }]
    const lockDuration = durationFromMs(86_400_000)
    await create({ retention: all, vmRetentions, tags: ['a', 'b'], lockDuration })
    const { policy: read } = await client.getPolicy({ name: 'policies/p' })
    expect(read).toMatchObject({ retention: all, vmRetentions, tags: ['a', 'b'], lockDuration })
  })

  it('is replaced, and taken away, by an update', async () => {
    await create({ retention: all, vmRetentions: [{ vm: 'vm1' }], tags: ['a'] })
    const other = keeping({ keepLast: 7 })
    const name = 'policies/p'
    const replaced = await client.updatePolicy({ policy: policy({ name, retention: other }) })
    expect(replaced.policy).toMatchObject({ retention: other, vmRetentions: [], tags: [] })
    const { policy: without } = await client.updatePolicy({ policy: policy({ name }) })
    expect(without?.retention).toBeUndefined()
  })

  it('is not there on a policy from before there were any', async () => {
    await site.pool.query(
      `INSERT INTO schedule.policies (name, request_id, vms, repository, level, skip_quiesce, paused)
       VALUES ('old', '', '{vm1}', 'repositories/nightly', 2, false, false)`,
    )
    const { policy: read } = await client.getPolicy({ name: 'policies/old' })
    expect(read).toMatchObject({ vmRetentions: [], tags: [] })
    expect(read?.retention).toBeUndefined()
  })

  it.each([
    ['keeps nothing', { retention: {} }, 'policy.retention'],
    ['counts below 0', { retention: { keepDaily: -1 } }, 'policy.retention.keep_daily'],
    [
      'is for a VM of another policy',
      { vmRetentions: [{ vm: 'vm3', retention: { keepLast: 1 } }] },
      'policy.vm_retentions.vm',
    ],
    [
      'names a VM twice',
      { vmRetentions: [{ vm: 'vm1' }, { vm: 'vm1' }] },
      'policy.vm_retentions.vm',
    ],
    [
      'keeps nothing of a VM',
      { vmRetentions: [{ vm: 'vm1', retention: {} }] },
      'policy.vm_retentions.retention',
    ],
    ['has a tag that is none', { tags: ['a b'] }, 'policy.tags'],
    [
      'locks for parts of a second',
      { lockDuration: durationFromMs(1_500) },
      'policy.lock_duration',
    ],
    ['locks for longer than ever', { lockDuration: durationFromMs(4e11) }, 'policy.lock_duration'],
  ])('is refused when it %s', async (_, given, field) => {
    await expect(create(given)).rejects.toMatchObject({
      reason: 'ARGUMENT_INVALID',
      metadata: { field },
    })
  })
})

describe('PlanRetention', () => {
  const asked: catalog.PlanRetentionRequest[] = []
  const decision = (vmIdentity: string, backup: string) =>
    retention.RetentionDecision.fromPartial({ vmIdentity, backup })

  /** Catalog answers two backups of each VM, one a page. */
  beforeEach(() => {
    asked.length = 0
    site.world.plan = (request) => {
      asked.push(request)
      const identity = request.vm === 'name of vm1' ? 'vm1' : request.vm
      const last = request.pageToken === '1'
      const decisions = [decision(identity, last ? 'old' : 'new')]
      return { decisions, nextPageToken: last ? '' : '1' }
    }
  })

  const plan = async (vm = '') => {
    const seen: string[] = []
    let pageToken = ''
    do {
      const page = await client.planRetention({ name: 'policies/p', vm, pageSize: 1, pageToken })
      seen.push(...page.decisions.map(({ vmIdentity, backup }) => `${vmIdentity} ${backup}`))
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    return seen
  }

  it('asks for each VM with its own retention, else that of the policy, page by page', async () => {
    const [usual, other] = [keeping({ keepLast: 7 }), keeping({ keepDaily: 9 })]
    const vmRetentions = [{ vm: 'vm2', retention: other }, { vm: 'vm3' }]
    await create({ vms: ['vm1', 'vm2', 'vm3'], retention: usual, vmRetentions })
    expect(await plan()).toEqual(['vm1', 'vm2', 'vm3'].flatMap((vm) => [`${vm} new`, `${vm} old`]))
    const first = asked.filter(({ pageToken }) => pageToken === '')
    expect(first.map((each) => each.retention)).toEqual([usual, other, undefined])
    expect(first[0]).toMatchObject({
      ...{ parent: 'repositories/nightly', vm: 'vm1', policy: 'policies/p', pageSize: 1 },
      planTime: undefined,
    })
    expect(await plan('vm2')).toEqual(['vm2 new', 'vm2 old'])
  })

  it('decides a VM that stands in the policy by name and by identity once, by its identity', async () => {
    const vms = ['name of vm1', 'vm1']
    await create({ vms, retention: keeping({ keepLast: 1 }), vmRetentions: [{ vm: 'vm1' }] })
    expect(await plan()).toEqual(['vm1 new', 'vm1 old'])
    const page = { name: 'policies/p', vm: 'name of vm1', pageSize: 0, pageToken: '' }
    expect((await client.planRetention(page)).decisions).toEqual([])
  })

  it('ends when the policy lost the VMs of the next page', async () => {
    await create({ vms: ['vm1'] })
    const late = { name: 'policies/p', vm: '', pageSize: 0, pageToken: '1.' }
    expect(await client.planRetention(late)).toEqual({ decisions: [], nextPageToken: '' })
  })

  it('refuses VMs of other policies and tokens that are none', async () => {
    await create({})
    const request = { name: 'policies/p', vm: '', pageSize: 0, pageToken: '' }
    for (const [field, given] of [
      ['vm', { vm: 'vm9' }],
      ['page_token', { pageToken: '1' }],
      ['page_token', { pageToken: '-1.0' }],
      ['name', { name: 'p' }],
    ] as const) {
      await expect(client.planRetention({ ...request, ...given }), field).rejects.toMatchObject({
        reason: 'ARGUMENT_INVALID',
        metadata: { field },
      })
    }
    const unknown = client.planRetention({ ...request, name: 'policies/none' })
    await expect(unknown).rejects.toMatchObject({ reason: 'NOT_FOUND' })
  })

  it('passes on what catalog refuses', async () => {
    await create({ retention: keeping({ keepLast: 1 }) })
    site.world.plan = () => {
      throw new BackupError('KEY_MISSING', 'read the manifests: locked')
    }
    await expect(plan()).rejects.toMatchObject({ reason: 'KEY_MISSING' })
  })
})

describe('tags', () => {
  it('of the policy and of the caller are in the manifest', async () => {
    await create({ vms: ['vm1'], tags: ['weekly'] })
    const { runs } = await client.startPolicy({ name: 'policies/p', requestId: '' })
    await ended(client, runs[0])
    const request = schedule.StartBackupRequest.fromPartial({ vm: 'vm1', tags: ['before-upgrade'] })
    await ended(client, (await client.startBackup(request)).run)
    expect(site.world.manifests.map(({ tags }) => tags)).toEqual([['weekly'], ['before-upgrade']])
    await expect(client.startBackup({ ...request, tags: ['a', 'a'] })).rejects.toMatchObject({
      metadata: { field: 'tags' },
    })
  })
})
