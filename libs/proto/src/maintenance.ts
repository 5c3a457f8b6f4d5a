import { durationFromMs } from './duration.ts'
import type { Maintenance } from './gen/blockferry/catalog/v1/catalog_service.ts'

const dayMs = 24 * 3_600_000

/** What a repository gets that nothing else is said of: collected and saved to each day, undone for a week. */
export const maintenanceDefault: Maintenance = {
  collectRepeatDuration: durationFromMs(dayMs),
  undoDuration: durationFromMs(7 * dayMs),
  verifyRepeatDuration: undefined,
  saveRepeatDuration: durationFromMs(dayMs),
  verifyBytesPerSecond: 0n,
  collectBytesPerSecond: 0n,
}
