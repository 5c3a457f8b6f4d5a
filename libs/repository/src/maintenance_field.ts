// Checks of what is done to a repository by itself, and of the times in it. Each refuses with
// ARGUMENT_INVALID and says what to give instead.
import { argumentInvalid } from '@blockferry/errors'
import { type catalog, durationFromMs, maintenanceDefault, msFromDuration } from '@blockferry/proto'

type Duration = NonNullable<catalog.Maintenance['undoDuration']>

const dayMs = 24 * 3_600_000
const repeatMsMin = 60_000
const repeatMsMax = 366 * dayMs
const undoMsMax = 3_650 * dayMs

/** The maintenance that is meant: no undo window means 7 days. */
export function checkMaintenance(
  field: string,
  maintenance: catalog.Maintenance,
): catalog.Maintenance {
  const { collectRepeatDuration, undoDuration, verifyRepeatDuration } = maintenance
  return {
    collectRepeatDuration: checkRepeat(`${field}.collect_repeat_duration`, collectRepeatDuration),
    undoDuration: undoDuration
      ? checkUndo(`${field}.undo_duration`, undoDuration)
      : maintenanceDefault.undoDuration,
    verifyRepeatDuration: checkRepeat(`${field}.verify_repeat_duration`, verifyRepeatDuration),
    saveRepeatDuration: checkRepeat(
      `${field}.save_repeat_duration`,
      maintenance.saveRepeatDuration,
    ),
    collectBytesPerSecond: checkRate(
      `${field}.collect_bytes_per_second`,
      maintenance.collectBytesPerSecond,
    ),
    verifyBytesPerSecond: checkRate(
      `${field}.verify_bytes_per_second`,
      maintenance.verifyBytesPerSecond,
    ),
  }
}

/** Time from one start to the next, in whole milliseconds; undefined stays so: only by hand. */
export function checkRepeat(field: string, repeat: Duration | undefined): Duration | undefined {
  if (!repeat) return undefined
  const ms = Math.round(msFromDuration(repeat))
  if (ms >= repeatMsMin && ms <= repeatMsMax) return durationFromMs(ms)
  throw argumentInvalid(field, `${ms} ms`, 'give 1 minute to 366 days, or nothing')
}

/** How long removed backups can be undeleted. */
export function checkUndo(field: string, undo: Duration): Duration {
  const ms = Math.round(msFromDuration(undo))
  if (ms >= 0 && ms <= undoMsMax) return durationFromMs(ms)
  throw argumentInvalid(field, `${ms} ms`, 'give 0 s to 3650 days')
}

/** Bytes in a second; 0: no limit. */
export function checkRate(field: string, rate: bigint): bigint {
  if (rate >= 0n && rate <= BigInt(Number.MAX_SAFE_INTEGER)) return rate
  throw argumentInvalid(field, String(rate), 'give 0 to 2^53-1')
}
