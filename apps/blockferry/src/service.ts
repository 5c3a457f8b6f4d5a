// One service alone: what it needs of the settings, and how it is started. Its code is loaded only
// then: a listing is not to wait for the native engine.
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { RunningService } from '@blockferry/rpc'
import { limits, type ServiceName, type Settings } from './config.ts'

/** Starts `name` where the settings say; `databaseUrl` is not used by move. */
export async function startService(
  name: ServiceName,
  settings: Settings,
  databaseUrl: string,
): Promise<RunningService> {
  const { stateFolder, endpoints, logLevel } = settings
  const address = endpoints[name]
  if (address.startsWith('unix:')) mkdirSync(dirname(address.slice(5)), { recursive: true })
  switch (name) {
    case 'schedule': {
      const { scheduleConfig, startSchedule } = await import('@blockferry/schedule')
      return await startSchedule(
        scheduleConfig({
          stateFolder,
          databaseUrl,
          logLevel,
          addresses: endpoints,
          limits: { stopMs: limits.servicesStopTimeoutMs },
        }),
      )
    }
    case 'snapshot': {
      const { snapshotConfig, startSnapshot } = await import('@blockferry/snapshot')
      return await startSnapshot(snapshotConfig({ stateFolder, databaseUrl, logLevel, address }))
    }
    case 'move': {
      const { moveConfig, startMove } = await import('@blockferry/move')
      return await startMove(
        moveConfig({
          ...{ address, logLevel, runFolder: join(stateFolder, 'run') },
          keyFolder: join(stateFolder, 'keys'),
        }),
      )
    }
    case 'catalog': {
      const { catalogConfig, startCatalog } = await import('@blockferry/catalog')
      return await startCatalog(
        catalogConfig({ address, moveAddress: endpoints.move, databaseUrl, logLevel }),
      )
    }
  }
}
