// What the cases of bad input share: one installation, one guest that runs, one way to ask
// for a backup that is expected to be refused.
import { join } from 'node:path'
import { asBackupError } from '@blockferry/errors'
import { schedule } from '@blockferry/proto'
import type { Lab, Random } from '@blockferry/testkit'
import type { Hold } from './hold.ts'
import { check } from './row.ts'

export interface Ground {
  lab: Lab
  hold: Hold
  random: Random
  /** Of this round of cases; names that must be new are made with it. */
  round: number
}

/** Why something was refused, by the call itself or by the run that it made. */
export interface Refusal {
  reason: string
  message: string
}

export interface Case {
  name: string
  /** Null when the backup has to succeed all the same. */
  expects: { reason: string; says: RegExp } | null
  /** A backup is made on the way, so that its manifest and bitmaps stay. */
  makesBackup?: boolean
  /** The machine is booted anew, so its bitmaps are what the crash left. */
  reboots?: boolean
  /** Makes the fault, asks, mends. Null when this machine cannot make the fault. */
  work: (ground: Ground) => Promise<Refusal | null>
}

/** The folder of a VM of the lab's own host. */
export const homeOf = ({ lab }: Ground, vm: string): string => join(lab.folder, 'vms', vm)

/** A UUID of this round's own. */
export const uuidOf = ({ round }: Ground, last: number): string =>
  `5d4a7c1e-0000-4000-8000-${String(round * 10 + last).padStart(12, '0')}`

export const isRoot = process.getuid?.() === 0
export const none: Refusal = { reason: '', message: '' }

/** The refusal of a call. */
export async function refusalOf(call: Promise<unknown>): Promise<Refusal> {
  try {
    await call
  } catch (thrown) {
    const failure = asBackupError(thrown)
    if (!failure) throw thrown
    return { reason: failure.reason, message: failure.message }
  }
  throw new Error('the call was not refused')
}

/** The refusal of a backup: of the call, else of its run, which must not have made a backup. */
export async function refusedBackup(
  { lab }: Ground,
  request: Partial<schedule.StartBackupRequest>,
): Promise<Refusal> {
  const whole = { repository: 'repositories/main', ...request }
  const started = lab.stand.schedule.startBackup(schedule.StartBackupRequest.create(whole))
  const name = await started.then(
    ({ run }) => run?.name ?? '',
    () => null,
  )
  return name === null ? await refusalOf(started) : await refusalOfRun(lab, name)
}

export async function refusalOfRun(lab: Lab, name: string): Promise<Refusal> {
  const { state, error } = await lab.stand.runEnd(name)
  const { SUCCEEDED } = schedule.Run_State
  check(state !== SUCCEEDED, `${name} succeeded`)
  return { reason: error?.reason ?? '', message: error?.message ?? '' }
}
