// The options that say what is done to a repository by itself, and the same in words.
import { formatBytes } from '@blockferry/core'
import { type catalog, type durationFromMs, msFromDuration } from '@blockferry/proto'
import type { Command } from 'commander'
import { rateArgument, repeatArgument, undoArgument } from './option_value.ts'
import type { Field } from './table.ts'
import { shortDuration } from './time_text.ts'

type Duration = ReturnType<typeof durationFromMs>

export interface MaintenanceOptions {
  collectEvery?: Duration | typeof never
  verifyEvery?: Duration | typeof never
  saveEvery?: Duration | typeof never
  undo?: Duration
  verifyRate?: bigint
  collectRate?: bigint
}

const never = 'never'

export const withMaintenance = (command: Command): Command =>
  command
    .option(
      '--collect-every <time>',
      'give space back so often: 1d (default), never',
      repeatOrNever,
    )
    .option('--undo <time>', 'keep removed backups for so long: 7d (default)', undoArgument)
    .option(
      '--verify-every <time>',
      'prove all backups so often: 30d, never (default)',
      repeatOrNever,
    )
    .option(
      '--collect-rate <bytes>',
      'of packs that are written anew: at most 50M a second',
      rateArgument,
    )
    .option('--verify-rate <bytes>', 'and read at most so much in a second: 50M', rateArgument)
    .option(
      '--save-every <time>',
      'save hosts and policies into it so often: 1d (default), never',
      repeatOrNever,
    )

const repeatOrNever = (text: string): Duration | typeof never =>
  text === never ? never : repeatArgument(text)

/** What the options make of it. */
export function changedMaintenance(
  before: catalog.Maintenance,
  { collectEvery, verifyEvery, saveEvery, undo, verifyRate, collectRate }: MaintenanceOptions,
): catalog.Maintenance {
  const repeat = (given: Duration | typeof never | undefined, now: Duration | undefined) =>
    given === undefined ? now : given === never ? undefined : given
  return {
    collectRepeatDuration: repeat(collectEvery, before.collectRepeatDuration),
    undoDuration: undo ?? before.undoDuration,
    verifyRepeatDuration: repeat(verifyEvery, before.verifyRepeatDuration),
    saveRepeatDuration: repeat(saveEvery, before.saveRepeatDuration),
    verifyBytesPerSecond: verifyRate ?? before.verifyBytesPerSecond,
    collectBytesPerSecond: collectRate ?? before.collectBytesPerSecond,
  }
}

/** Nothing when the service said nothing. */
export function maintenanceFields(maintenance: catalog.Maintenance | undefined): Field[] {
  if (!maintenance) return []
  const every = (repeat: Duration | undefined) =>
    repeat ? `every ${shortDuration(msFromDuration(repeat))}` : 'by hand'
  return [
    [
      'collected',
      every(maintenance.collectRepeatDuration) + rateText(maintenance.collectBytesPerSecond),
    ],
    [
      'verified',
      every(maintenance.verifyRepeatDuration) + rateText(maintenance.verifyBytesPerSecond),
    ],
    ['saved to', every(maintenance.saveRepeatDuration)],
    ['undo window', shortDuration(msFromDuration(maintenance.undoDuration))],
  ]
}

const rateText = (rate: bigint): string => (rate > 0n ? `, at most ${formatBytes(rate)}/s` : '')
