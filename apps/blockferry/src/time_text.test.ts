import { describe, expect, it } from 'vitest'
import { durationMs, shortDuration, timeText } from './time_text.ts'

describe('timeText', () => {
  it('tells the zone', () => {
    expect(timeText(new Date('2026-11-23T07:15:00Z'))).toMatch(
      /^2026-11-2\d \d\d:\d\d:\d\d (UTC|GMT|[A-Z])/,
    )
    expect(timeText(undefined)).toBe('')
  })
})

describe('durationMs', () => {
  it.each([
    ['30m', 1_800_000],
    ['12h', 43_200_000],
    ['1d 6h', 108_000_000],
    ['90', null],
    ['soon', null],
    ['1h x', null],
    ['', null],
  ])('%s', (text, ms) => expect(durationMs(text)).toBe(ms))
})

describe('shortDuration', () => {
  it.each([
    [0, '0s'],
    [90_000, '1m 30s'],
    [108_000_000, '1d 6h'],
    [7 * 86_400_000, '7d'],
  ])('%s ms is %s, which durationMs reads', (ms, text) => {
    expect(shortDuration(ms)).toBe(text)
    expect(durationMs(text)).toBe(ms)
  })
})
