import { BackupError } from '@blockferry/errors'
import { durationFromMs, retention, schedule } from '@blockferry/proto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  type Answers,
  type Asked,
  type Doubles,
  fakeTerminal,
  serveDoubles,
} from './service_doubles.ts'

const answers: Answers = {}
let doubles: Doubles

beforeEach(async () => {
  doubles = await serveDoubles(answers)
})
afterEach(async () => {
  for (const method of Object.keys(answers)) delete answers[method]
  await doubles[Symbol.asyncDispose]()
})

const keeping = (given: object) => retention.Retention.fromPartial(given)
const dayMs = 86_400_000

/** The policy that a command sends, when the service knows `before`. */
async function sent(before: object, ...args: string[]): Promise<schedule.Policy> {
  const policy = schedule.Policy.fromPartial({
    ...{ name: 'policies/web', vms: ['web-1', 'web-2'], repository: 'repositories/nightly' },
    ...before,
  })
  answers.getPolicy = () => ({ policy })
  answers.updatePolicy = (request: { policy: schedule.Policy }) => request
  answers.createPolicy = (request: { policy: schedule.Policy }) => request
  const { code, err } = await doubles.run('policy', ...args)
  expect(err).toBe('')
  expect(code).toBe(0)
  const last = doubles.asked.at(-1) as Asked
  return (last.request as { policy: schedule.Policy }).policy
}

describe('policy create', () => {
  it('sends what is to be kept, and the tags', async () => {
    const policy = await sent(
      {},
      ...['create', 'web', '--vm', 'web-1', '--to', 'nightly', '--tag', 'gold', '--tag', 'x'],
      ...['--keep-last', '7', '--keep-hourly', '24', '--keep-daily', '14', '--keep-weekly', '8'],
      ...['--keep-monthly', '12', '--keep-yearly', '3', '--minimum-age', '1d 12h'],
      ...['--keep-tag', 'a', '--keep-tag', 'b', '--retention-time-zone', 'Europe/Berlin'],
    )
    expect(policy.tags).toEqual(['gold', 'x'])
    expect(policy.retention).toEqual({
      ...{ keepLast: 7, keepHourly: 24, keepDaily: 14, keepWeekly: 8, keepMonthly: 12 },
      ...{ keepYearly: 3, keepTags: ['a', 'b'], timeZone: 'Europe/Berlin' },
      minimumAgeDuration: durationFromMs(1.5 * dayMs),
    })
  })

  it('keeps everything unless it is told', async () => {
    const policy = await sent({}, 'create', 'web', '--vm', 'web-1', '--to', 'nightly')
    expect(policy.retention).toBeUndefined()
    expect(policy.vmRetentions).toEqual([])
  })
})

describe('policy update', () => {
  const usual = keeping({ keepLast: 7, keepDaily: 14, timeZone: 'UTC' })

  it('changes the rules that are named and leaves the others', async () => {
    const policy = await sent({ retention: usual }, 'update', 'web', '--keep-daily', '0')
    expect(policy.retention).toEqual({ ...usual, keepDaily: 0 })
    expect((await sent({ retention: usual }, 'update', 'web', '--pause')).retention).toEqual(usual)
  })

  it('forgets them with --keep-all, and begins anew with what stands beside it', async () => {
    const all = await sent({ retention: usual }, 'update', 'web', '--keep-all')
    expect(all.retention).toBeUndefined()
    const anew = await sent(
      { retention: usual },
      ...['update', 'web', '--keep-all', '--keep-yearly', '5'],
    )
    expect(anew.retention).toEqual(keeping({ keepYearly: 5 }))
  })

  it('gives one VM rules of its own and takes them away again', async () => {
    const own = await sent(
      { retention: usual },
      ...['update', 'web', '--of-vm', 'web-2', '--keep-daily', '90'],
    )
    expect(own.retention).toEqual(usual)
    expect(own.vmRetentions).toEqual([{ vm: 'web-2', retention: keeping({ keepDaily: 90 }) }])
    const everything = await sent(own, 'update', 'web', '--of-vm', 'web-2', '--keep-all')
    expect(everything.vmRetentions).toEqual([{ vm: 'web-2', retention: undefined }])
    const none = await sent(own, 'update', 'web', '--of-vm', 'web-2', '--keep-as-policy')
    expect(none.vmRetentions).toEqual([])
  })

  it('drops the rules of VMs that leave the policy', async () => {
    const vmRetentions = [{ vm: 'web-2', retention: usual }]
    expect((await sent({ vmRetentions }, 'update', 'web', '--vm', 'web-1')).vmRetentions).toEqual(
      [],
    )
  })

  it.each([
    [['--keep-as-policy'], '--of-vm'],
    [['--of-vm', 'web-1'], '--keep-all'],
    [['--keep-last', '-1'], 'from 0'],
    [['--keep-last', 'many'], 'from 0'],
    [['--minimum-age', 'long'], '7d'],
  ])('refuses %j in 2, and sends nothing', async (args, hint) => {
    answers.getPolicy = () => ({ policy: schedule.Policy.fromPartial({}) })
    const { code, err } = await doubles.run('policy', 'update', 'web', ...args)
    expect(code).toBe(2)
    expect(err).toContain(hint)
    expect(doubles.asked.some(({ method }) => method === 'updatePolicy')).toBe(false)
  })
})

describe('policy show', () => {
  it('says in words what is kept', async () => {
    const minimumAgeDuration = durationFromMs(7.5 * dayMs)
    const rules = { keepLast: 7, keepYearly: 2, keepTags: ['gold'], timeZone: 'Europe/Berlin' }
    const policy = schedule.Policy.fromPartial({
      ...{ name: 'policies/web', vms: ['web-1'], tags: ['a', 'b'] },
      retention: { ...rules, minimumAgeDuration },
      vmRetentions: [{ vm: 'web-1' }],
    })
    answers.getPolicy = () => ({ policy })
    const { out } = await doubles.runOn(fakeTerminal(120), 'policy', 'show', 'web')
    expect(out).toContain(
      'keeps:        last 7, yearly 2, younger than 7d 12h, tagged gold (Europe/Berlin)\n' +
        '              web-1: everything\n',
    )
    expect(out).toMatch(/tags: +a b\n/)
    const json = JSON.parse((await doubles.run('policy', 'show', 'web', '-o', 'json')).out)
    expect(json.retention).toEqual({
      ...{ keep_last: 7, keep_hourly: 0, keep_daily: 0, keep_weekly: 0, keep_monthly: 0 },
      ...{ keep_yearly: 2, minimum_age_duration_ms: 7.5 * dayMs, keep_tags: ['gold'] },
      time_zone: 'Europe/Berlin',
    })
    expect(json.vm_retentions).toEqual([{ vm: 'web-1', retention: null }])
  })
})

describe('retention explain', () => {
  const Kind = retention.RetentionReason_Kind
  const { KEEP, REMOVE } = retention.RetentionDecision_Verdict
  const decision = (given: object) =>
    retention.RetentionDecision.fromPartial({
      backup: 'repositories/nightly/backups/20261123-071500-4f2a9c',
      vmIdentity: 'id-1',
      vmDisplayName: 'web-1',
      pointTime: new Date('2026-11-23T07:15:00Z'),
      ...{ sizeBytes: 1_048_576n, storedBytes: 1024n, verdict: KEEP },
      reasons: [
        { kind: Kind.KEEP_LAST, detail: '1' },
        { kind: Kind.KEEP_DAILY, detail: '2026-11-23' },
      ],
      ...given,
    })
  const expired = {
    backup: 'repositories/nightly/backups/20260101-000000-000000',
    verdict: REMOVE,
    reasons: [{ kind: Kind.REMOVE_EXPIRED, detail: '' }],
  }
  const answer = (...pages: retention.RetentionDecision[][]) => {
    answers.planRetention = ({ pageToken }: { pageToken: string }) => {
      const index = Number(pageToken)
      const nextPageToken = index + 1 < pages.length ? String(index + 1) : ''
      return { decisions: pages[index], nextPageToken }
    }
  }

  it('shows of each backup whether it stays, and why, over all pages', async () => {
    answer([decision({})], [], [decision(expired)])
    const { code, out, err } = await doubles.runOn(
      fakeTerminal(160),
      ...['retention', 'explain', 'web', '--vm', 'web-1'],
    )
    expect(code).toBe(0)
    expect(doubles.asked[0]?.request).toMatchObject({ name: 'policies/web', vm: 'web-1' })
    const lines = out.split('\n')
    expect(lines[0]).toMatch(/^BACKUP +VM +TIME +SIZE +STORED +VERDICT +WHY$/)
    expect(lines[1]).toMatch(
      /^20261123-071500-4f2a9c +web-1 .* 1\.0 MiB +1\.0 KiB +keep +KEEP_LAST 1, KEEP_DAILY 2026-11-23$/,
    )
    expect(lines[2]).toMatch(/^20260101-000000-000000 .* remove +REMOVE_EXPIRED$/)
    expect(err).toBe('1 stay, 1 would go. Nothing was removed.\n')
  })

  it('never cuts the verdict on a narrow terminal', async () => {
    answer([decision({ vmDisplayName: 'a-name-that-is-long' }), decision(expired)])
    const { out } = await doubles.runOn(fakeTerminal(60), 'retention', 'explain', 'web')
    expect(out).toMatch(/20260101-000000-000000 .*remove/)
    for (const line of out.split('\n')) expect(line.length, line).toBeLessThanOrEqual(60)
  })

  it('prints JSON with stable words', async () => {
    answer([decision({}), decision(expired)])
    const { out } = await doubles.run('retention', 'explain', 'web', '-o', 'json', '-q')
    expect(JSON.parse(out)[0]).toEqual({
      backup: 'repositories/nightly/backups/20261123-071500-4f2a9c',
      ...{ vm_identity: 'id-1', vm_display_name: 'web-1', point_time: '2026-11-23T07:15:00.000Z' },
      ...{ size_bytes: 1_048_576, stored_bytes: 1024, verdict: 'keep' },
      reasons: [
        { kind: 'keep_last', detail: '1' },
        { kind: 'keep_daily', detail: '2026-11-23' },
      ],
    })
    expect(JSON.parse(out)[1]).toMatchObject({ verdict: 'remove' })
  })

  it('says loudly, in 1, when a VM would lose everything, also when it is to be quiet', async () => {
    answer([decision({}), decision({ ...expired, vmIdentity: 'id-2', vmDisplayName: 'db\u202e' })])
    const { code, err } = await doubles.run('retention', 'explain', 'web', '-q')
    expect(code).toBe(1)
    expect(err).toContain('ATTENTION: ALL backups of db\\u{202e} (id-2) would go.')
    expect(err).not.toContain('web-1')
  })

  it('says that there are no backups, and passes a refusal on', async () => {
    answer([])
    expect(await doubles.run('retention', 'explain', 'web')).toMatchObject({
      ...{ code: 0, out: '', err: 'No backups of these VMs.\n' },
    })
    answers.planRetention = () => {
      throw new BackupError('NOT_FOUND', 'find policies/web: there is none', {})
    }
    expect((await doubles.run('retention', 'explain', 'web')).code).toBe(4)
  })

  it('explains itself with examples, within 80 columns', async () => {
    for (const words of [
      ['retention', 'explain'],
      ['policy', 'update'],
      ['policy', 'create'],
    ]) {
      const { code, out } = await doubles.run(...words, '--help')
      expect(code).toBe(0)
      expect(out).toContain('Examples:')
      for (const line of out.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80)
    }
  })
})

describe('tags of a backup', () => {
  it('are sent with the request', async () => {
    answers.startBackup = () => ({ run: schedule.Run.fromPartial({ name: 'runs/1' }) })
    const tags = ['--tag', 'before-upgrade', '--tag', 'gold']
    expect((await doubles.run('backup', 'web-1', '--detach', ...tags)).code).toBe(0)
    expect(doubles.asked[0]?.request).toMatchObject({ tags: ['before-upgrade', 'gold'] })
  })
})
