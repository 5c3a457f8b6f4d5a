import { join } from 'node:path'

/** Every limit of the snapshot service. Times in milliseconds. */
export interface SnapshotLimits {
  /** How often points are looked for that nobody holds any more. */
  reapIntervalMs: number
  /** How long a point lives without a hold when the caller does not say. */
  leaseMs: number
  leaseMsMax: number
  /** How long one host may take to tell its VMs or points. */
  inventoryMs: number
  /** Freeze, pause and point take 10 s at most; the stop hook of a folder VM may take an hour. */
  beginMs: number
  confirmMs: number
  /** A start hook included. */
  releaseMs: number
  /** Room that the fleece folder must have before a point is taken. */
  fleeceFreeBytesMin: number
  hostsMax: number
}

export interface SnapshotConfig {
  /** `unix:/path` or a loopback address with a port. */
  address: string
  databaseUrl: string
  /** Keeps the installation's tag and what is needed while the database is down. */
  stateFolder: string
  /** For sockets of points; short, since a unix socket's path ends at 107 bytes. */
  runFolder: string
  /** For fleece stores of hosts that name no folder. */
  fleeceFolder: string
  logLevel: string
  limits: SnapshotLimits
}

const limitsDefault: SnapshotLimits = {
  reapIntervalMs: 5_000,
  leaseMs: 30_000,
  leaseMsMax: 3_600_000,
  inventoryMs: 10_000,
  beginMs: 3_700_000,
  confirmMs: 60_000,
  releaseMs: 3_700_000,
  fleeceFreeBytesMin: 64 * 2 ** 20,
  hostsMax: 10_000,
}

export interface SnapshotSettings {
  stateFolder: string
  databaseUrl: string
  /** Where to listen when not on `unix:<state>/run/snapshot.sock`. */
  address?: string
  logLevel?: string
  limits?: Partial<SnapshotLimits>
}

/** The whole configuration from what was set; everything else has its default. */
export function snapshotConfig(settings: SnapshotSettings): SnapshotConfig {
  const { stateFolder, databaseUrl } = settings
  return {
    address: settings.address ?? `unix:${join(stateFolder, 'run', 'snapshot.sock')}`,
    databaseUrl,
    stateFolder,
    runFolder: join(stateFolder, 'run'),
    fleeceFolder: join(stateFolder, 'fleece'),
    logLevel: settings.logLevel ?? 'info',
    limits: { ...limitsDefault, ...settings.limits },
  }
}
