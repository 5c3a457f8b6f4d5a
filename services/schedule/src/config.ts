import { join } from 'node:path'

/** Version of the program, written into every backup. */
export const programVersion = '0.1.0'

/** Every limit of the schedule service. Times in milliseconds. */
export interface ScheduleLimits {
  /** Runs of any kind that work at once. */
  runsMax: number
  runsPerHostMax: number
  runsPerRepositoryMax: number
  /** How often queued runs, leases and due policies are looked at. */
  tickMs: number
  /** How often repositories are looked at for maintenance that is due. */
  maintenanceTickMs: number
  /** How often the holder of a run counts its heartbeat up. */
  heartbeatMs: number
  /** A heartbeat that stands still for so long of the observer's clock gives the run to others. */
  leaseMs: number
  /** How long a run may work in all; counted in heartbeats, so no clock can jump it. */
  runDeadlineMs: number
  /** How often a point is held while it is read. */
  pointHoldMs: number
  /** How long a point lives without a hold: longer than a restart of this service and its lease. */
  pointLeaseMs: number
  /** Longer than the snapshot service's own limit, which allows for a stop hook of an hour. */
  beginPointMs: number
  confirmPointMs: number
  /** Allows for a start hook. */
  releasePointMs: number
  /** How long a point of the same VM that is still being removed is waited for. */
  pointBusyMs: number
  /** How long snapshot may be silent before a run fails; also the longest try to release. */
  snapshotSilentMs: number
  /** How long a mover may be silent before a run fails. */
  moverSilentMs: number
  /** A watch without news for so long is opened again, which finds a mover that hangs. */
  watchQuietMs: number
  /** Movers that start anew in the middle of one run. */
  sessionRestartsMax: number
  commitMs: number
  /** How long catalog is asked to record a backup; afterwards a rebuild of the catalog finds it. */
  recordMs: number
  /** Pause before another service is asked again. */
  retryPauseMs: number
  progressMs: number
  watchMs: number
  /** How long a stop waits for its runs to let go. */
  stopMs: number
}

export interface ScheduleConfig {
  address: string
  snapshotAddress: string
  moveAddress: string
  catalogAddress: string
  databaseUrl: string
  logLevel: string
  limits: ScheduleLimits
}

const limitsDefault: ScheduleLimits = {
  runsMax: 8,
  runsPerHostMax: 2,
  runsPerRepositoryMax: 4,
  tickMs: 1_000,
  maintenanceTickMs: 60_000,
  heartbeatMs: 2_000,
  leaseMs: 10_000,
  runDeadlineMs: 24 * 3_600_000,
  pointHoldMs: 8_000,
  pointLeaseMs: 30_000,
  beginPointMs: 3_720_000,
  confirmPointMs: 90_000,
  releasePointMs: 600_000,
  pointBusyMs: 45_000,
  snapshotSilentMs: 120_000,
  moverSilentMs: 600_000,
  watchQuietMs: 60_000,
  sessionRestartsMax: 10,
  commitMs: 600_000,
  recordMs: 300_000,
  retryPauseMs: 500,
  progressMs: 1_000,
  watchMs: 250,
  stopMs: 10_000,
}

export interface ScheduleSettings {
  stateFolder: string
  databaseUrl: string
  logLevel?: string
  /** Where services listen when not on `unix:<state>/run/<service>.sock`. */
  addresses?: Partial<Record<'schedule' | 'snapshot' | 'move' | 'catalog', string>>
  limits?: Partial<ScheduleLimits>
}

/** The whole configuration from what was set; everything else has its default. */
export function scheduleConfig(settings: ScheduleSettings): ScheduleConfig {
  const address = (service: 'schedule' | 'snapshot' | 'move' | 'catalog') =>
    settings.addresses?.[service] ?? `unix:${join(settings.stateFolder, 'run', `${service}.sock`)}`
  return {
    address: address('schedule'),
    snapshotAddress: address('snapshot'),
    moveAddress: address('move'),
    catalogAddress: address('catalog'),
    databaseUrl: settings.databaseUrl,
    logLevel: settings.logLevel ?? 'info',
    limits: { ...limitsDefault, ...settings.limits },
  }
}
