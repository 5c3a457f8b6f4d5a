import { durationFromMs, retention as proto } from '@blockferry/proto'
import { describe, expect, it } from 'vitest'
import { checkRetention, checkTags } from './index.ts'

const check = (given: object) => checkRetention('retention', proto.Retention.fromPartial(given))
const dayMs = 86_400_000

describe('checkRetention', () => {
  it.each([
    ['a count', { keepYearly: 1 }],
    ['a tag alone', { keepTags: ['gold'] }],
    [
      'everything at once',
      {
        ...{ keepLast: 1, keepHourly: 2, keepDaily: 3, keepWeekly: 4, keepMonthly: 5 },
        ...{ keepYearly: 100_000, keepTags: ['a', 'b'], timeZone: 'Europe/Berlin' },
        minimumAgeDuration: durationFromMs(36_600 * dayMs),
      },
    ],
  ])('takes %s', (_, given) => {
    expect(check(given)).toEqual({ ...proto.Retention.fromPartial({ timeZone: 'UTC' }), ...given })
  })

  it.each([
    ['nothing', {}, 'retention'],
    [
      'an age alone, which a clock can undo',
      { minimumAgeDuration: durationFromMs(1) },
      'retention',
    ],
    ['a negative count', { keepLast: -1 }, 'retention.keep_last'],
    ['a count without end', { keepHourly: 100_001 }, 'retention.keep_hourly'],
    [
      'a negative age',
      { keepLast: 1, minimumAgeDuration: durationFromMs(-1000) },
      'retention.minimum_age_duration',
    ],
    [
      'an age without end',
      { keepLast: 1, minimumAgeDuration: durationFromMs(36_601 * dayMs) },
      'retention.minimum_age_duration',
    ],
    ['an empty tag', { keepTags: [''] }, 'retention.keep_tags'],
    ['a tag with a newline', { keepTags: ['a\n'] }, 'retention.keep_tags'],
    ['a tag twice', { keepTags: ['a', 'a'] }, 'retention.keep_tags'],
    ['a zone that is none', { keepLast: 1, timeZone: 'Berlin' }, 'retention.time_zone'],
    ['a distance as zone', { keepLast: 1, timeZone: '+01:00' }, 'retention.time_zone'],
  ])('refuses %s', (_, given, field) => {
    expect(() => check(given)).toThrowError(
      expect.objectContaining({
        reason: 'ARGUMENT_INVALID',
        metadata: expect.objectContaining({ field }),
      }),
    )
  })

  it('says what to do about a retention that keeps nothing', () => {
    expect(() => check({})).toThrowError(/leave the retention out to keep everything/)
  })
})

describe('checkTags', () => {
  it('takes 64 tags and no more', () => {
    const tags = Array.from({ length: 65 }, (_, index) => `t${index}`)
    expect(checkTags('tags', tags.slice(1))).toHaveLength(64)
    expect(() => checkTags('tags', tags)).toThrowError(/at most 64/)
  })
})
