import { describe, expect, it } from 'vitest'
import { calendarOf } from './calendar.ts'

const at = (timeZone: string, time: string) => calendarOf(timeZone)(Date.parse(time))

describe('calendarOf', () => {
  it.each([
    ['UTC', '2026-11-20T14:59:59.999Z', '2026-11-20T14+00:00', '2026-11-20', '2026-W47'],
    ['Europe/Berlin', '2026-11-20T23:30:00Z', '2026-11-21T00+01:00', '2026-11-21', '2026-W47'],
    ['America/New_York', '2026-07-01T02:00:00Z', '2026-06-30T22-04:00', '2026-06-30', '2026-W27'],
    ['Asia/Kolkata', '2026-01-01T18:31:00Z', '2026-01-02T00+05:30', '2026-01-02', '2026-W01'],
    ['Pacific/Kiritimati', '2026-12-31T10:00:00Z', '2027-01-01T00+14:00', '2027-01-01', '2026-W53'],
    // Before 1970, and with a part of a second.
    ['UTC', '1969-12-31T23:59:59.500Z', '1969-12-31T23+00:00', '1969-12-31', '1970-W01'],
  ])('names the buckets of %s at %s', (zone, time, hour, day, week) => {
    const [month, year] = [day.slice(0, 7), day.slice(0, 4)]
    expect(at(zone, time)).toEqual({ hour, day, week, month, year })
  })

  it.each([
    ['2027-01-03T12:00:00Z', '2026-W53'],
    ['2027-01-04T00:00:00Z', '2027-W01'],
    ['2024-12-30T00:00:00Z', '2025-W01'],
    ['2021-01-01T00:00:00Z', '2020-W53'],
    ['2023-01-01T23:59:59Z', '2022-W52'],
  ])('gives %s to the year of its Thursday', (time, week) => {
    expect(at('UTC', time).week).toBe(week)
  })

  it('tells the hour that comes twice in autumn apart, and makes up none in spring', () => {
    const hours = (times: string[]) => times.map((time) => at('Europe/Berlin', time).hour)
    expect(hours(['2026-10-25T00:30:00Z', '2026-10-25T01:30:00Z'])).toEqual([
      '2026-10-25T02+02:00',
      '2026-10-25T02+01:00',
    ])
    expect(hours(['2026-03-29T00:59:59Z', '2026-03-29T01:00:00Z'])).toEqual([
      '2026-03-29T01+01:00',
      '2026-03-29T03+02:00',
    ])
  })

  it('keeps a day of 25 hours one day, and one of half an hour less, too', () => {
    const day = (zone: string, time: string) => at(zone, time).day
    expect(day('Europe/Berlin', '2026-10-24T22:00:00Z')).toBe('2026-10-25')
    expect(day('Europe/Berlin', '2026-10-25T22:59:59Z')).toBe('2026-10-25')
    expect(day('Europe/Berlin', '2026-10-25T23:00:00Z')).toBe('2026-10-26')
    // Lord Howe Island moves its clocks by half an hour.
    expect(at('Australia/Lord_Howe', '2026-04-04T14:45:00Z').hour).toBe('2026-04-05T01+11:00')
    expect(at('Australia/Lord_Howe', '2026-04-04T15:15:00Z').hour).toBe('2026-04-05T01+10:30')
  })

  it('leaves out the day that Samoa left out', () => {
    expect(at('Pacific/Apia', '2011-12-30T09:59:59Z').day).toBe('2011-12-29')
    expect(at('Pacific/Apia', '2011-12-30T10:00:00Z').day).toBe('2011-12-31')
  })
})
