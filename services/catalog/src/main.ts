import { fileURLToPath } from 'node:url'
import { newLog } from '@blockferry/core'
import { migrate, openPool } from '@blockferry/postgres'
import { catalog, move } from '@blockferry/proto'
import { connect, type RunningService, serve } from '@blockferry/rpc'
import type { CatalogConfig } from './config.ts'
import { catalogHandlers } from './service.ts'
import { Store } from './store.ts'

/** The same path from src/ and from dist/. */
const migrationsFolder = fileURLToPath(new URL('../migrations', import.meta.url))

/** Serves the catalog service until it is disposed of. */
export async function startCatalog(config: CatalogConfig): Promise<RunningService> {
  const log = newLog('catalog', config.logLevel)
  const pool = openPool(config.databaseUrl, {
    applicationName: 'blockferry catalog',
    connectionsMax: config.connectionsMax,
    onBroken: (error) => log.warn({ err: error }, 'a database connection broke'),
  })
  try {
    await migrate(pool, 'catalog', migrationsFolder)
    const mover = connect<move.MoveServiceServer>(
      'move',
      move.MoveServiceService,
      config.moveAddress,
    )
    const service = await serve<catalog.CatalogServiceServer>({
      address: config.address,
      name: 'blockferry.catalog.v1.CatalogService',
      definition: catalog.CatalogServiceService,
      handlers: catalogHandlers({ config, store: new Store(pool), mover }),
      log,
    })
    return {
      address: service.address,
      async [Symbol.asyncDispose]() {
        await service[Symbol.asyncDispose]()
        mover[Symbol.dispose]()
        await pool.end()
      },
    }
  } catch (thrown) {
    await pool.end()
    throw thrown
  }
}
