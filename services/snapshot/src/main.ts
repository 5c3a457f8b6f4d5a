// Wires the service. The reaper starts before the database is asked: what an earlier
// process left behind is removed even while PostgreSQL is down.
import { mkdir } from 'node:fs/promises'
import { newLog } from '@blockferry/core'
import { argumentInvalid, asBackupError } from '@blockferry/errors'
import { openPool } from '@blockferry/postgres'
import { snapshot } from '@blockferry/proto'
import { type RunningService, serve } from '@blockferry/rpc'
import type { SnapshotConfig } from './config.ts'
import { Drivers } from './drivers.ts'
import { HostMemory } from './host_memory.ts'
import { installationTag } from './installation.ts'
import { Points } from './points.ts'
import { Reaper } from './reap.ts'
import { snapshotHandlers } from './service.ts'
import { Store } from './store.ts'

/** Starts the service; disposing of the answer stops it in order. */
export async function startSnapshot(config: SnapshotConfig): Promise<RunningService> {
  const log = newLog('snapshot', config.logLevel)
  checkRunFolder(config.runFolder)
  await using parts = new AsyncDisposableStack()
  const tag = await installationTag(config.stateFolder)
  await mkdir(config.runFolder, { recursive: true, mode: 0o700 })
  const pool = parts.adopt(
    openPool(config.databaseUrl, {
      applicationName: 'blockferry snapshot',
      onBroken: (error) => log.warn({ err: error }, 'an idle connection to the database broke'),
    }),
    (open) => open.end(),
  )
  const store = new Store(pool)
  const memory = new HostMemory(config.stateFolder, store, log)
  await memory.loadFile()
  const drivers = parts.use(new Drivers(config, tag, memory))
  const points = new Points(drivers, config.limits, log)
  parts.use(new Reaper(points, config.limits, log))
  await memory.refresh().catch((thrown) => {
    if (asBackupError(thrown)?.reason !== 'DATABASE_UNREACHABLE') throw thrown
    log.warn({ err: thrown }, 'the database does not answer: remembered hosts are used')
  })
  const service = await serve<snapshot.SnapshotServiceServer>({
    address: config.address,
    name: 'blockferry.snapshot.v1.SnapshotService',
    definition: snapshot.SnapshotServiceService,
    handlers: snapshotHandlers({ config, store, memory, drivers, points }),
    log,
  })
  parts.use(service)
  const running = parts.move()
  return { address: service.address, [Symbol.asyncDispose]: () => running.disposeAsync() }
}

const socketPathSizeMax = 107
/** Longest path below the run folder: the monitor of a storage daemon. */
const socketBelow = '/012345/bf-012345-0123456789ab/qmp.sock'

/** Too long a path would be found out by QEMU, with the first point. Errors: ARGUMENT_INVALID. */
function checkRunFolder(runFolder: string): void {
  const size = Buffer.byteLength(runFolder) + socketBelow.length
  if (size <= socketPathSizeMax) return
  const sizeMax = socketPathSizeMax - socketBelow.length
  throw argumentInvalid('run folder', runFolder, `use a folder of at most ${sizeMax} bytes`)
}
