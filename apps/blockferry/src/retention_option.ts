// The options of a policy that say what is kept, and the same in words.
import { durationFromMs, msFromDuration, retention, type schedule } from '@blockferry/proto'
import { type Command, InvalidArgumentError } from 'commander'
import { usageError } from './failure.ts'
import { durationMs, shortDuration } from './time_text.ts'
import { collect } from './verb.ts'

type Retention = retention.Retention

export interface RetentionOptions {
  keepLast?: number
  keepHourly?: number
  keepDaily?: number
  keepWeekly?: number
  keepMonthly?: number
  keepYearly?: number
  minimumAge?: Retention['minimumAgeDuration']
  keepTag?: string[]
  retentionTimeZone?: string
  keepAll?: boolean
  ofVm?: string
  keepAsPolicy?: boolean
}

const countHelp = {
  last: 'keep so many of the newest backups',
  hourly: 'keep the newest backup of each of so many hours that have one',
  daily: 'the same with days',
  weekly: 'the same with weeks, from Monday',
  monthly: 'the same with months',
  yearly: 'the same with years',
}

export function withRetention(command: Command): Command {
  for (const [word, help] of Object.entries(countHelp)) {
    command.option(`--keep-${word} <count>`, help, keepCountArgument)
  }
  return command
    .option('--minimum-age <time>', 'keep everything younger: 12h, 7d', ageArgument)
    .option('--keep-tag <tag>', 'keep backups that carry this tag; repeatable', collect)
    .option('--retention-time-zone <zone>', 'whose days count: Europe/Berlin; default UTC')
}

/** REQUIRES: withRetention(command) was called. */
export const withRetentionOfVm = (command: Command): Command =>
  command
    .option('--keep-all', 'forget the rules so far; without others everything is kept')
    .option('--of-vm <vm>', "the rules are for this VM alone, instead of the policy's")
    .option('--keep-as-policy', 'with --of-vm: no rules of its own any more')

function keepCountArgument(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError('Give a number from 0.')
  return Number(text)
}

function ageArgument(text: string): Retention['minimumAgeDuration'] {
  const ms = durationMs(text)
  if (ms === null) throw new InvalidArgumentError('Give a time, for example 12h or 7d.')
  return durationFromMs(ms)
}

/** What the options make of the retentions of a policy. */
export function changeRetention(
  policy: schedule.Policy,
  options: RetentionOptions,
): Pick<schedule.Policy, 'retention' | 'vmRetentions'> {
  const { vmRetentions } = policy
  const { ofVm } = options
  if (ofVm === undefined) {
    if (options.keepAsPolicy) throw usageError('--keep-as-policy: name the VM with --of-vm')
    return { retention: changed(policy.retention, options), vmRetentions }
  }
  const own = vmRetentions.find(({ vm }) => vm === ofVm)
  const others = vmRetentions.filter(({ vm }) => vm !== ofVm)
  if (options.keepAsPolicy) return { retention: policy.retention, vmRetentions: others }
  const mine = { vm: ofVm, retention: changed(own?.retention, options) }
  if (!own && !mine.retention && !options.keepAll) {
    throw usageError(`--of-vm ${ofVm}: give its rules, or --keep-all to keep everything`)
  }
  return { retention: policy.retention, vmRetentions: [...others, mine] }
}

const counts = [
  ['last', 'keepLast'],
  ['hourly', 'keepHourly'],
  ['daily', 'keepDaily'],
  ['weekly', 'keepWeekly'],
  ['monthly', 'keepMonthly'],
  ['yearly', 'keepYearly'],
] as const

function changed(before: Retention | undefined, options: RetentionOptions): Retention | undefined {
  const { keepAll, minimumAge, keepTag, retentionTimeZone } = options
  const start = keepAll ? undefined : before
  const given: Partial<Retention> = {
    ...(minimumAge ? { minimumAgeDuration: minimumAge } : {}),
    ...(keepTag ? { keepTags: keepTag } : {}),
    ...(retentionTimeZone === undefined ? {} : { timeZone: retentionTimeZone }),
  }
  for (const [, key] of counts) {
    const count = options[key]
    if (count !== undefined) given[key] = count
  }
  if (Object.keys(given).length === 0) return start
  return { ...(start ?? retention.Retention.fromPartial({})), ...given }
}

/** The rules of a policy, then those of single VMs. */
export const retentionTexts = (policy: schedule.Policy): string[] => [
  retentionText(policy.retention),
  ...policy.vmRetentions.map((own) => `${own.vm}: ${retentionText(own.retention)}`),
]

/** `last 7, daily 14, younger than 7d, tagged gold (Europe/Berlin)` */
function retentionText(kept: Retention | undefined): string {
  if (!kept) return 'everything'
  const ageMs = msFromDuration(kept.minimumAgeDuration)
  const rules = [
    ...counts.flatMap(([word, key]) => (kept[key] > 0 ? [`${word} ${kept[key]}`] : [])),
    ...(ageMs > 0 ? [`younger than ${shortDuration(ageMs)}`] : []),
    ...kept.keepTags.map((tag) => `tagged ${tag}`),
  ]
  return `${rules.join(', ')} (${kept.timeZone})`
}
