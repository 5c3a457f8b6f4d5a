// Which backups of one VM stay, and why. Pure: nothing is asked and nothing is removed here.
//
// Calendar rules count buckets that have backups, backwards from the latest backup, not from now: a
// long pause and a clock that was set forward expire nothing. `now` only tells which backups are
// younger than the minimum age, and which claim to be of the future.
//
// No backup depends on another one, so each is decided by itself and its level plays no part.
//
// Invariants, each held by a property test:
// - Whether a backup stays depends only on itself, on the rules, and on those that are newer than it.
// - What is damaged or of the future stays, and moves no other backup.
// - Of backups that can be read, one at least stays.
import { msFromDuration, retention as proto } from '@blockferry/proto'
import { type CalendarPlace, calendarOf } from './calendar.ts'

export interface Candidate {
  /** Among those of one VM, only one has it. */
  name: string
  pointMs: number
  /** Counts the VM's backups in the order of their commits. */
  sequence: bigint
  tags: readonly string[]
  /** No disk of the VM was left out. */
  complete: boolean
  /** The repository has no manifest of it that can be read. */
  damaged: boolean
  held: boolean
  /** By the clock that `now` is of; null: not locked. */
  lockedUntilMs: number | null
}

export interface Decided<C extends Candidate> {
  candidate: C
  verdict: proto.RetentionDecision_Verdict
  /** At least one. */
  reasons: proto.RetentionReason[]
}

const Kind = proto.RetentionReason_Kind
const Verdict = proto.RetentionDecision_Verdict

type Count = 'keepHourly' | 'keepDaily' | 'keepWeekly' | 'keepMonthly' | 'keepYearly'

const calendarRules: [Count, proto.RetentionReason_Kind, keyof CalendarPlace][] = [
  ['keepHourly', Kind.KEEP_HOURLY, 'hour'],
  ['keepDaily', Kind.KEEP_DAILY, 'day'],
  ['keepWeekly', Kind.KEEP_WEEKLY, 'week'],
  ['keepMonthly', Kind.KEEP_MONTHLY, 'month'],
  ['keepYearly', Kind.KEEP_YEARLY, 'year'],
]

/** In the order of `candidates`, which are all of one VM. REQUIRES: the retention is checked. */
export function decide<C extends Candidate>(
  candidates: readonly C[],
  retention: proto.Retention,
  nowMs: number,
): Decided<C>[] {
  const reasons = new Map<Candidate, proto.RetentionReason[]>(
    candidates.map((each) => [each, ownReasons(each, retention, nowMs)]),
  )
  const keep: Keep = (each, kind, detail = '') => {
    const own = reasons.get(each)
    if (!own?.some((reason) => reason.kind === kind)) own?.push({ kind, detail })
  }
  const counted = candidates.filter(({ damaged, pointMs }) => !damaged && pointMs <= nowMs)
  keepNewest(counted, retention.keepLast, keep)
  keepCalendar(counted, retention, keep)
  return candidates.map((candidate) => {
    const kept = reasons.get(candidate) ?? []
    if (kept.length > 0) return { candidate, verdict: Verdict.KEEP, reasons: kept }
    const expired = [{ kind: Kind.REMOVE_EXPIRED, detail: '' }]
    return { candidate, verdict: Verdict.REMOVE, reasons: expired }
  })
}

type Keep = (candidate: Candidate, kind: proto.RetentionReason_Kind, detail?: string) => void

/** What keeps a backup whatever others there are. */
function ownReasons(
  { damaged, held, lockedUntilMs, pointMs, tags }: Candidate,
  { keepTags, minimumAgeDuration }: proto.Retention,
  nowMs: number,
): proto.RetentionReason[] {
  const reasons: proto.RetentionReason[] = []
  if (damaged) reasons.push({ kind: Kind.KEEP_DAMAGED, detail: '' })
  if (held) reasons.push({ kind: Kind.KEEP_HOLD, detail: '' })
  if (lockedUntilMs !== null && lockedUntilMs > nowMs) {
    reasons.push({ kind: Kind.KEEP_LOCKED, detail: timeText(lockedUntilMs) })
  }
  for (const tag of keepTags) {
    if (tags.includes(tag)) reasons.push({ kind: Kind.KEEP_TAG, detail: tag })
  }
  const minimumAgeMs = msFromDuration(minimumAgeDuration)
  if (pointMs > nowMs) {
    reasons.push({ kind: Kind.KEEP_FUTURE, detail: '' })
  } else if (nowMs - pointMs < minimumAgeMs) {
    reasons.push({ kind: Kind.KEEP_MINIMUM_AGE, detail: timeText(pointMs + minimumAgeMs) })
  }
  return reasons
}

const timeText = (ms: number): string => new Date(ms).toISOString()

/**
 * New by the order of commits, since a clock may have been set back, or by time, since numbers are
 * given out again when the manifests that bore them could not be read for a while.
 */
function keepNewest(counted: readonly Candidate[], keepLast: number, keep: Keep): void {
  for (const newestFirst of [[...counted].sort(byCommit), [...counted].sort(byTime)]) {
    const [newest] = newestFirst
    if (newest) keep(newest, Kind.KEEP_NEWEST)
    const complete = newestFirst.find((each) => each.complete)
    if (complete) keep(complete, Kind.KEEP_NEWEST_COMPLETE)
    newestFirst.slice(0, keepLast).forEach((each, index) => {
      keep(each, Kind.KEEP_LAST, String(index + 1))
    })
  }
}

/** By point time: that is what a calendar is about. */
function keepCalendar(counted: readonly Candidate[], retention: proto.Retention, keep: Keep): void {
  const calendar = calendarOf(retention.timeZone)
  const taken = calendarRules.map(([count, kind, part]) => ({
    countMax: retention[count],
    names: new Set<string>(),
    kind,
    part,
  }))
  for (const candidate of [...counted].sort(byTime)) {
    const place = calendar(candidate.pointMs)
    for (const rule of taken) {
      const name = place[rule.part]
      if (rule.names.size >= rule.countMax || rule.names.has(name)) continue
      rule.names.add(name)
      keep(candidate, rule.kind, name)
    }
  }
}

const byCommit = (one: Candidate, other: Candidate): number =>
  order(other.sequence, one.sequence) || byTime(one, other)

/** Newest first; the last two make it independent of the order of the input. */
const byTime = (one: Candidate, other: Candidate): number =>
  other.pointMs - one.pointMs || order(other.sequence, one.sequence) || order(other.name, one.name)

const order = <T extends bigint | string>(one: T, other: T): number =>
  one < other ? -1 : one > other ? 1 : 0
