import { catalog, move, snapshot } from '@blockferry/proto'
import { connect, type RpcClient } from '@blockferry/rpc'
import type { ScheduleConfig } from './config.ts'

/** The three services that carry a run out. */
export interface Services extends Disposable {
  snapshot: RpcClient<snapshot.SnapshotServiceServer>
  move: RpcClient<move.MoveServiceServer>
  catalog: RpcClient<catalog.CatalogServiceServer>
}

export function connectServices(config: ScheduleConfig): Services {
  const services = {
    snapshot: connect<snapshot.SnapshotServiceServer>(
      'snapshot',
      snapshot.SnapshotServiceService,
      config.snapshotAddress,
    ),
    move: connect<move.MoveServiceServer>('move', move.MoveServiceService, config.moveAddress),
    catalog: connect<catalog.CatalogServiceServer>(
      'catalog',
      catalog.CatalogServiceService,
      config.catalogAddress,
    ),
  }
  return {
    ...services,
    [Symbol.dispose]() {
      for (const client of Object.values(services)) client[Symbol.dispose]()
    },
  }
}
