import { catalog, move, schedule, snapshot } from '@blockferry/proto'
import { connect, type RpcClient } from '@blockferry/rpc'
import type { Settings } from './config.ts'

/** Clients of the four services; each connects when it is first used. */
export interface Services extends Disposable {
  readonly schedule: RpcClient<schedule.ScheduleServiceServer>
  readonly snapshot: RpcClient<snapshot.SnapshotServiceServer>
  readonly move: RpcClient<move.MoveServiceServer>
  readonly catalog: RpcClient<catalog.CatalogServiceServer>
}

export function servicesAt(endpoints: Settings['endpoints']): Services {
  const open = new DisposableStack()
  const once = <T extends Disposable>(make: () => T) => {
    let made: T | undefined
    return () => {
      made ??= open.use(make())
      return made
    }
  }
  const clients = {
    schedule: once(() =>
      connect<schedule.ScheduleServiceServer>(
        'schedule',
        schedule.ScheduleServiceService,
        endpoints.schedule,
      ),
    ),
    snapshot: once(() =>
      connect<snapshot.SnapshotServiceServer>(
        'snapshot',
        snapshot.SnapshotServiceService,
        endpoints.snapshot,
      ),
    ),
    move: once(() =>
      connect<move.MoveServiceServer>('move', move.MoveServiceService, endpoints.move),
    ),
    catalog: once(() =>
      connect<catalog.CatalogServiceServer>(
        'catalog',
        catalog.CatalogServiceService,
        endpoints.catalog,
      ),
    ),
  }
  return {
    get schedule() {
      return clients.schedule()
    },
    get snapshot() {
      return clients.snapshot()
    },
    get move() {
      return clients.move()
    },
    get catalog() {
      return clients.catalog()
    },
    [Symbol.dispose]: () => open.dispose(),
  }
}

interface PageOf<Item> {
  items: Item[]
  nextPageToken: string
}

/** Up to `count` items of a listing; `more` when there are others. */
export async function listed<Item>(
  count: number,
  pageSize: number,
  page: (size: number, token: string) => Promise<PageOf<Item>>,
): Promise<{ items: Item[]; more: boolean }> {
  const items: Item[] = []
  let token = ''
  do {
    const answer = await page(Math.min(pageSize, count - items.length), token)
    items.push(...answer.items)
    token = answer.nextPageToken
  } while (token !== '' && items.length < count)
  return { items: items.slice(0, count), more: token !== '' || items.length > count }
}
