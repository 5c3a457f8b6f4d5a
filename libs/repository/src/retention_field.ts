// Checks of a retention and of tags in requests. Each refuses with ARGUMENT_INVALID and says what
// to give instead. Both the policy's service and the catalog check: a retention that cannot be used
// must not be stored, and one that is used must be whole.
import { argumentInvalid } from '@blockferry/errors'
import { msFromDuration, type retention as proto } from '@blockferry/proto'

type Retention = proto.Retention

const countMax = 100_000
const minimumAgeDaysMax = 36_600
const dayMs = 24 * 3_600_000
const tagsMax = 64
const tagPattern = /^[A-Za-z0-9_.-]{1,63}$/

const countFields = [
  ['keep_last', 'keepLast'],
  ['keep_hourly', 'keepHourly'],
  ['keep_daily', 'keepDaily'],
  ['keep_weekly', 'keepWeekly'],
  ['keep_monthly', 'keepMonthly'],
  ['keep_yearly', 'keepYearly'],
] as const satisfies readonly (readonly [string, keyof Retention])[]

/** The retention that is meant: no zone means UTC. */
export function checkRetention(field: string, retention: Retention): Retention {
  for (const [name, key] of countFields) {
    const count = retention[key]
    if (count < 0 || count > countMax) {
      throw argumentInvalid(`${field}.${name}`, String(count), `give 0 to ${countMax}`)
    }
  }
  checkMinimumAge(`${field}.minimum_age_duration`, retention)
  const keepTags = checkTags(`${field}.keep_tags`, retention.keepTags)
  if (keepTags.length === 0 && countFields.every(([, key]) => retention[key] === 0)) {
    throw argumentInvalid(
      field,
      'no count and no tag',
      'it would keep the newest backup alone; give at least one count or tag, for example keep_last 7, or leave the retention out to keep everything',
    )
  }
  return { ...retention, keepTags, timeZone: checkTimeZone(field, retention.timeZone) }
}

function checkMinimumAge(field: string, { minimumAgeDuration }: Retention): void {
  const ms = msFromDuration(minimumAgeDuration)
  if (ms >= 0 && ms <= minimumAgeDaysMax * dayMs) return
  throw argumentInvalid(field, `${ms} ms`, `give 0 to ${minimumAgeDaysMax} days`)
}

function checkTimeZone(field: string, timeZone: string): string {
  if (timeZone === '') return 'UTC'
  try {
    // Later engines take distances like `+01:00`, too, which know no summer time.
    if (/^[A-Za-z]/.test(timeZone)) {
      new Intl.DateTimeFormat('en-US', { timeZone })
      return timeZone
    }
  } catch {
    // Refused below.
  }
  throw argumentInvalid(
    `${field}.time_zone`,
    timeZone,
    'give a name of the IANA time zone database, for example Europe/Berlin or UTC',
  )
}

export function checkTags(field: string, tags: string[]): string[] {
  if (tags.length > tagsMax) {
    throw argumentInvalid(field, String(tags.length), `give at most ${tagsMax} tags`)
  }
  tags.forEach((tag, index) => {
    if (!tagPattern.test(tag)) {
      throw argumentInvalid(field, tag, 'give 1 to 63 letters, digits, -, _ or .')
    }
    if (tags.indexOf(tag) !== index) throw argumentInvalid(field, tag, 'name it once')
  })
  return tags
}
