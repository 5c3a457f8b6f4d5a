import { randomBytes } from 'node:crypto'
import { durationFromMs, retention as proto } from '@blockferry/proto'
import { describe, expect, it } from 'vitest'
import { calendarOf } from './calendar.ts'
import { type Candidate, type Decided, decide } from './retention.ts'

const hourMs = 3_600_000
const dayMs = 24 * hourMs
const nowMs = Date.parse('2026-11-20T15:00:00Z')

const kindName = (kind: proto.RetentionReason_Kind): string =>
  proto.retentionReason_KindToJSON(kind).replace('KIND_', '')
const keeping = (given: object): proto.Retention =>
  proto.Retention.fromPartial({ timeZone: 'UTC', ...given })

let sequence = 0n
const made = (time: string, more: Partial<Candidate> = {}): Candidate => ({
  name: time,
  pointMs: Date.parse(time),
  sequence: ++sequence,
  ...{ tags: [], complete: true, damaged: false, held: false, lockedUntilMs: null },
  ...more,
})

const reasonsOf = ({ reasons }: Decided<Candidate>): string[] =>
  reasons.map(({ kind, detail }) => `${kindName(kind)} ${detail}`.trim())

/** Name → reasons, without those of the newest, which every history has. */
function explained(candidates: Candidate[], given: object) {
  const decided = decide(candidates, keeping(given), nowMs)
  return Object.fromEntries(
    decided.map((each) => [
      each.candidate.name,
      reasonsOf(each).filter((reason) => !reason.startsWith('KEEP_NEWEST')),
    ]),
  )
}

const expired = ['REMOVE_EXPIRED']

describe('decide', () => {
  it('keeps the newest ones by their place', () => {
    const all = ['2026-11-17', '2026-11-18', '2026-11-19', '2026-11-20'].map((day) => made(day))
    expect(explained(all, { keepLast: 2 })).toEqual({
      '2026-11-20': ['KEEP_LAST 1'],
      '2026-11-19': ['KEEP_LAST 2'],
      '2026-11-18': expired,
      '2026-11-17': expired,
    })
  })

  it('keeps the newest of each of the last days, weeks, months and years that have one', () => {
    const all = [
      ...['2024-02-01T01:00Z', '2025-12-31T01:00Z', '2026-10-01T01:00Z', '2026-10-31T01:00Z'],
      ...['2026-11-08T01:00Z', '2026-11-09T01:00Z', '2026-11-20T01:00Z', '2026-11-20T02:00Z'],
    ].map((time) => made(time))
    const given = { keepHourly: 1, keepDaily: 2, keepWeekly: 3, keepMonthly: 3, keepYearly: 3 }
    expect(explained(all, given)).toEqual({
      '2026-11-20T02:00Z': [
        ...['KEEP_HOURLY 2026-11-20T02+00:00', 'KEEP_DAILY 2026-11-20', 'KEEP_WEEKLY 2026-W47'],
        ...['KEEP_MONTHLY 2026-11', 'KEEP_YEARLY 2026'],
      ],
      '2026-11-20T01:00Z': expired,
      '2026-11-09T01:00Z': ['KEEP_DAILY 2026-11-09', 'KEEP_WEEKLY 2026-W46'],
      '2026-11-08T01:00Z': ['KEEP_WEEKLY 2026-W45'],
      '2026-10-31T01:00Z': ['KEEP_MONTHLY 2026-10'],
      '2026-10-01T01:00Z': expired,
      '2025-12-31T01:00Z': ['KEEP_MONTHLY 2025-12', 'KEEP_YEARLY 2025'],
      '2024-02-01T01:00Z': ['KEEP_YEARLY 2024'],
    })
  })

  it('begins days where the zone does, and keeps both of the hours that come twice', () => {
    const all = ['2026-10-24T21:30Z', '2026-10-24T22:30Z', '2026-10-25T00:30Z', '2026-10-25T01:30Z']
    const given = { keepDaily: 2, keepHourly: 2, timeZone: 'Europe/Berlin' }
    expect(
      explained(
        all.map((time) => made(time)),
        given,
      ),
    ).toEqual({
      '2026-10-25T01:30Z': ['KEEP_HOURLY 2026-10-25T02+01:00', 'KEEP_DAILY 2026-10-25'],
      '2026-10-25T00:30Z': ['KEEP_HOURLY 2026-10-25T02+02:00'],
      '2026-10-24T22:30Z': expired,
      '2026-10-24T21:30Z': ['KEEP_DAILY 2026-10-24'],
    })
  })

  it('keeps what is younger than the minimum age, held, locked or tagged', () => {
    const all = [
      made('2026-11-01T00:00:00Z', { tags: ['silver', 'gold'] }),
      made('2026-11-02T00:00:00Z', { held: true }),
      made('2026-11-03T00:00:00Z', { lockedUntilMs: nowMs + 1 }),
      made('2026-11-04T00:00:00Z', { lockedUntilMs: nowMs }),
      made('2026-11-18T15:00:00Z'),
      made('2026-11-18T15:00:00.001Z'),
      made('2026-11-19T00:00:00Z'),
    ]
    const minimumAgeDuration = durationFromMs(2 * dayMs)
    const given = { keepLast: 1, keepTags: ['gold', 'bronze'], minimumAgeDuration }
    expect(explained(all, given)).toEqual({
      '2026-11-01T00:00:00Z': ['KEEP_TAG gold'],
      '2026-11-02T00:00:00Z': ['KEEP_HOLD'],
      '2026-11-03T00:00:00Z': ['KEEP_LOCKED 2026-11-20T15:00:00.001Z'],
      '2026-11-04T00:00:00Z': expired,
      '2026-11-18T15:00:00Z': expired,
      '2026-11-18T15:00:00.001Z': ['KEEP_MINIMUM_AGE 2026-11-20T15:00:00.001Z'],
      '2026-11-19T00:00:00Z': ['KEEP_MINIMUM_AGE 2026-11-21T00:00:00.000Z', 'KEEP_LAST 1'],
    })
  })

  it('keeps the newest, and the newest that left no disk out', () => {
    const all = [
      made('2026-11-17'),
      made('2026-11-18'),
      made('2026-11-19', { complete: false }),
      made('2026-11-20', { complete: false }),
    ]
    const decided = decide(all, keeping({ keepTags: ['none'] }), nowMs)
    expect(decided.map(reasonsOf)).toEqual([
      expired,
      ['KEEP_NEWEST_COMPLETE'],
      expired,
      ['KEEP_NEWEST'],
    ])
  })

  it('lets a healthy backup fill the place of a damaged one', () => {
    const all = [
      made('2026-11-19T01:00Z'),
      made('2026-11-20T01:00Z'),
      made('2026-11-20T02:00Z', { damaged: true }),
    ]
    const given = { keepLast: 1, keepDaily: 2 }
    expect(explained(all, given)).toEqual({
      '2026-11-20T02:00Z': ['KEEP_DAMAGED'],
      '2026-11-20T01:00Z': ['KEEP_LAST 1', 'KEEP_DAILY 2026-11-20'],
      '2026-11-19T01:00Z': ['KEEP_DAILY 2026-11-19'],
    })
  })
})

describe('a clock that is wrong', () => {
  it('ahead for a while: its backups stay until their time has come, and push nobody out', () => {
    const all = [made('2026-11-19'), made('2027-11-19'), made('2027-11-20'), made('2026-11-20')]
    expect(explained(all, { keepLast: 2 })).toEqual({
      '2027-11-20': ['KEEP_FUTURE'],
      '2027-11-19': ['KEEP_FUTURE'],
      '2026-11-20': ['KEEP_LAST 1'],
      '2026-11-19': ['KEEP_LAST 2'],
    })
  })

  it('behind for a while: its backups are the last ones all the same', () => {
    const all = [made('2026-11-18'), made('2026-11-19'), made('1970-01-02')]
    expect(explained(all, { keepLast: 1, keepDaily: 1 })).toEqual({
      '1970-01-02': ['KEEP_LAST 1'],
      '2026-11-19': ['KEEP_LAST 1', 'KEEP_DAILY 2026-11-19'],
      '2026-11-18': expired,
    })
  })

  it('plays no part when numbers were given out twice: what is newest by time stays, too', () => {
    // 7 and 8 could not be read when the last one was made, and can be again.
    const all = [
      made('2026-11-17', { sequence: 7n }),
      made('2026-11-18', { sequence: 8n }),
      made('2026-11-19', { sequence: 7n }),
    ]
    const decided = decide(all, keeping({ keepTags: ['none'] }), nowMs)
    expect(decided.map((each) => reasonsOf(each)[0])).toEqual([
      'REMOVE_EXPIRED',
      'KEEP_NEWEST',
      'KEEP_NEWEST',
    ])
  })

  it('that stands behind everything keeps everything', () => {
    const all = ['2026-11-18', '2026-11-19', '2026-11-20'].map((day) => made(day))
    const decided = decide(all, keeping({ keepLast: 1 }), 0)
    expect(decided.map(reasonsOf)).toEqual([['KEEP_FUTURE'], ['KEEP_FUTURE'], ['KEEP_FUTURE']])
  })
})

/** Mulberry32, so that a failure can be replayed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below)
  }
}

const zones = ['UTC', 'Europe/Berlin', 'America/St_Johns', 'Pacific/Apia', 'Australia/Lord_Howe']
const countKeys = [
  ...(['keepLast', 'keepHourly', 'keepDaily', 'keepWeekly', 'keepMonthly', 'keepYearly'] as const),
]

function historyOf(random: (below: number) => number): Candidate[] {
  const stepMs = [hourMs / 3, hourMs * 5, dayMs, 9 * dayMs][random(4)] ?? hourMs
  const count = random(60)
  return Array.from({ length: count }, (_, index) => {
    // Some clocks were wrong by up to two years, either way.
    const wrongMs = random(8) === 0 ? (random(1460) - 730) * dayMs : 0
    return made('2026-11-20', {
      name: `b${index}`,
      pointMs: Math.floor(nowMs - (count - index) * stepMs + random(stepMs) + wrongMs),
      sequence: BigInt(random(20) === 0 ? random(60) : index),
      tags: random(6) === 0 ? ['gold'] : [],
      complete: random(4) > 0,
      damaged: random(10) === 0,
      held: random(15) === 0,
      lockedUntilMs: random(10) === 0 ? nowMs + (random(3) - 1) * dayMs : null,
    })
  })
}

function rulesOf(random: (below: number) => number): proto.Retention {
  const counts = countKeys.map((key) => [key, random(3) === 0 ? random(12) : 0])
  const keepTags = random(2) === 0 ? ['gold'] : []
  const minimumAgeDuration = durationFromMs(random(2) * random(30) * dayMs)
  const counted = Object.fromEntries(counts)
  return keeping({ ...counted, keepTags, minimumAgeDuration, timeZone: zones[random(5)] })
}

const seeds = process.env.SEED
  ? [Number(process.env.SEED)]
  : Array.from({ length: 50 }, () => randomBytes(4).readUInt32LE())

describe.each(seeds)('of every history (SEED=%i)', (seed) => {
  const random = randomOf(seed)
  const history = historyOf(random)
  const rules = rulesOf(random)
  const of = (candidates: Candidate[], given = rules) =>
    new Map(decide(candidates, given, nowMs).map((each) => [each.candidate.name, reasonsOf(each)]))
  const before = of(history)
  const removed = (reasons: string[] | undefined) => reasons?.[0] === 'REMOVE_EXPIRED'

  it('an older backup changes nothing for those that are newer', () => {
    const added = made('2026-11-20', {
      name: 'added',
      pointMs: nowMs - random(400) * dayMs,
      sequence: BigInt(random(60)),
      damaged: random(5) === 0,
    })
    const after = of([...history, added])
    for (const { name, pointMs, sequence: place } of history) {
      if (pointMs <= added.pointMs || place <= added.sequence) continue
      expect(after.get(name), `SEED=${seed} ${name}`).toEqual(before.get(name))
    }
  })

  it('one that is damaged or of the future stays and changes nothing at all', () => {
    const pointMs = nowMs + (random(2) === 0 ? 1 : -random(900) * dayMs)
    const added = made('2026-11-20', { name: 'added', pointMs, sequence: 1000n, damaged: true })
    const future = { ...added, damaged: false, pointMs: nowMs + 1 }
    for (const each of [added, future]) {
      const after = of([...history, each])
      expect(removed(after.get('added')), `SEED=${seed}`).toBe(false)
      after.delete('added')
      expect(after, `SEED=${seed}`).toEqual(before)
    }
  })

  it('the order in which they are given plays no part', () => {
    const shuffled = history
      .map((each) => ({ each, place: random(1000) }))
      .sort((one, other) => one.place - other.place)
      .map(({ each }) => each)
    expect(of(shuffled), `SEED=${seed}`).toEqual(before)
  })

  it('a second time removes nothing more', () => {
    const left = history.filter(({ name }) => !removed(before.get(name)))
    const expected = new Map([...before].filter(([, reasons]) => !removed(reasons)))
    expect(of(left), `SEED=${seed}`).toEqual(expected)
  })

  it('a bigger count keeps more', () => {
    const key = countKeys[random(countKeys.length)] ?? 'keepLast'
    const after = of(history, { ...rules, [key]: rules[key] + 1 + random(5) })
    for (const [name, reasons] of before) {
      if (!removed(reasons)) expect(removed(after.get(name)), `SEED=${seed} ${name}`).toBe(false)
    }
  })

  it('one that can be read stays, and so do all that cannot', () => {
    const readable = history.filter(({ damaged }) => !damaged)
    const stay = readable.filter(({ name }) => !removed(before.get(name)))
    expect(stay.length, `SEED=${seed}`).toBeGreaterThanOrEqual(Math.min(1, readable.length))
    for (const { name, damaged } of history) {
      if (damaged) expect(before.get(name), `SEED=${seed}`).toContain('KEEP_DAMAGED')
    }
  })

  it('as many days as are asked for and have a backup keep their newest', () => {
    const dayOf = calendarOf(rules.timeZone)
    const healthy = history.filter(({ damaged, pointMs }) => !damaged && pointMs <= nowMs)
    const newest = new Map<string, number>()
    for (const { pointMs } of healthy) {
      const { day } = dayOf(pointMs)
      newest.set(day, Math.max(newest.get(day) ?? -Infinity, pointMs))
    }
    const expected = [...newest].sort(([, one], [, other]) => other - one).slice(0, rules.keepDaily)
    const kept = healthy.flatMap(({ name, pointMs }) =>
      (before.get(name) ?? [])
        .filter((reason) => reason.startsWith('KEEP_DAILY'))
        .map((reason) => [reason.slice('KEEP_DAILY '.length), pointMs] as [string, number]),
    )
    expect(new Map(kept), `SEED=${seed}`).toEqual(new Map(expected))
  })

  it('a pause of any length expires nothing but by age, lock and future', () => {
    const plain = history.filter(({ pointMs }) => pointMs <= nowMs)
    const unlocked = plain.map((each) => ({ ...each, lockedUntilMs: null }))
    const ageless = { ...rules, minimumAgeDuration: undefined }
    const at = (now: number) =>
      decide(unlocked, ageless, now).map((each) => [each.candidate.name, reasonsOf(each)])
    expect(at(nowMs + random(20_000) * dayMs), `SEED=${seed}`).toEqual(at(nowMs))
  })
})
