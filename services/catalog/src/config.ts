// Every limit of the catalog service, by name.

export interface CatalogConfig {
  /** `unix:/path` or a loopback address with a port. */
  address: string
  databaseUrl: string
  /** Where the move service listens. */
  moveAddress: string
  logLevel: string
  connectionsMax: number
  /** Longest time a page of manifests may take to read. */
  listDeadlineMs: number
  /** Manifests asked for at once while a catalog is rebuilt. */
  listPageSize: number
}

export type CatalogSettings = Pick<CatalogConfig, 'address' | 'databaseUrl' | 'moveAddress'> &
  Partial<CatalogConfig>

/** The configuration with a default for everything that is not set. */
export function catalogConfig(settings: CatalogSettings): CatalogConfig {
  return {
    logLevel: 'info',
    connectionsMax: 8,
    listDeadlineMs: 10 * 60_000,
    listPageSize: 1000,
    ...settings,
  }
}
