// Which hour, day, ISO week, month and year an instant belongs to, by the calendar of a time zone.
//
// The platform's own Intl knows the zones and their history; a name says which bucket is meant to
// people, too, and two instants are in one bucket exactly when they get the same name.

export interface CalendarPlace {
  /** `2026-10-25T02+01:00`: with its distance from UTC, since an hour comes twice in autumn. */
  hour: string
  day: string
  /** `2026-W47`, by ISO 8601: the week's year is that of its Thursday. */
  week: string
  month: string
  year: string
}

const minuteMs = 60_000
const dayMs = 24 * 60 * minuteMs

/** REQUIRES: a zone that Intl knows. */
export function calendarOf(timeZone: string): (ms: number) => CalendarPlace {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone,
    calendar: 'iso8601',
    numberingSystem: 'latn',
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
  })
  return (ms) => placeOf(wallClockMs(format, ms), ms)
}

/** What the clock on the wall shows, as if it were UTC. */
function wallClockMs(format: Intl.DateTimeFormat, ms: number): number {
  const parts = Object.fromEntries(
    format.formatToParts(ms).map(({ type, value }) => [type, Number(value)]),
  )
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts
  // Date.UTC takes the years 0 to 99 for those of the last century.
  return (
    new Date(0).setUTCFullYear(year, month - 1, day) + Date.UTC(1970, 0, 1, hour, minute, second)
  )
}

function placeOf(wallMs: number, ms: number): CalendarPlace {
  const text = new Date(wallMs).toISOString()
  const day = text.slice(0, text.indexOf('T'))
  return {
    hour: `${text.slice(0, day.length + 3)}${distanceText(wallMs - Math.floor(ms / 1000) * 1000)}`,
    day,
    week: weekOf(wallMs),
    month: day.slice(0, -3),
    year: day.slice(0, -6),
  }
}

function distanceText(distanceMs: number): string {
  const minutes = Math.round(Math.abs(distanceMs) / minuteMs)
  const two = (value: number): string => String(value).padStart(2, '0')
  return `${distanceMs < 0 ? '-' : '+'}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`
}

function weekOf(wallMs: number): string {
  const dayFromMonday = (new Date(wallMs).getUTCDay() + 6) % 7
  const thursday = new Date(wallMs + (3 - dayFromMonday) * dayMs)
  const year = thursday.getUTCFullYear()
  const dayOfYear = Math.floor((thursday.getTime() - Date.UTC(year, 0, 1)) / dayMs)
  return `${year}-W${String(Math.floor(dayOfYear / 7) + 1).padStart(2, '0')}`
}
