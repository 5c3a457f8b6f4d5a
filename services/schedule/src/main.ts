import { fileURLToPath } from 'node:url'
import { type Logger, newLog, sleep } from '@blockferry/core'
import { migrate, openPool } from '@blockferry/postgres'
import { schedule } from '@blockferry/proto'
import { type RunningService, serve } from '@blockferry/rpc'
import type { ScheduleConfig } from './config.ts'
import { Holder } from './holder.ts'
import { startDueMaintenance } from './maintenance.ts'
import { PolicyStore } from './policy_store.ts'
import { Queue } from './queue.ts'
import { startDue } from './repeat.ts'
import { RunStore } from './run_store.ts'
import { scheduleHandlers } from './service.ts'
import { connectServices } from './services.ts'

const migrations = fileURLToPath(new URL('../migrations', import.meta.url))

/** Starts the schedule service. Disposing of it leaves its runs to be taken over. */
export async function startSchedule(config: ScheduleConfig): Promise<RunningService> {
  const log = newLog('schedule', config.logLevel)
  await using undo = new AsyncDisposableStack()
  const pool = openPool(config.databaseUrl, {
    applicationName: 'blockferry schedule',
    onBroken: (error) => log.warn({ err: error }, 'connection to the database broke'),
  })
  undo.defer(() => pool.end())
  await migrate(pool, 'schedule', migrations)
  const services = undo.use(connectServices(config))
  const { limits } = config
  const runs = new RunStore(pool)
  const policies = new PolicyStore(pool)
  const queue = new Queue(runs, services)
  const holder = new Holder({ services, store: runs, policies }, limits, log)
  // Apart: a policy waits for hosts that do not answer, neither runs nor their stop do.
  undo.use(tick(limits.tickMs, log, () => startDue(policies, queue, log)))
  undo.use(
    tick(limits.maintenanceTickMs, log, () =>
      startDueMaintenance(runs, queue, services.catalog, log),
    ),
  )
  const claiming = tick(limits.tickMs, log, () => holder.claim())
  undo.defer(() => holder.stop())
  undo.use(claiming)
  const service = await serve<schedule.ScheduleServiceServer>({
    address: config.address,
    name: 'blockferry.schedule.v1.ScheduleService',
    definition: schedule.ScheduleServiceService,
    handlers: scheduleHandlers({
      ...{ runs, policies, queue, holder, limits },
      catalog: services.catalog,
      wake: claiming.wake,
    }),
    log,
  })
  undo.use(service)
  const all = undo.move()
  return { address: service.address, [Symbol.asyncDispose]: () => all.disposeAsync() }
}

interface Tick extends AsyncDisposable {
  /** Does it now. */
  wake: () => void
}

/** Does `action` every `ms`; a failure is logged and tried again. */
function tick(ms: number, log: Logger, action: () => Promise<void>): Tick {
  const stopping = new AbortController()
  let waking = new AbortController()
  const loop = async () => {
    while (!stopping.signal.aborted) {
      await action().catch((thrown: unknown) => log.error({ err: thrown }, 'tick failed'))
      await sleep(ms, AbortSignal.any([stopping.signal, waking.signal])).catch(() => {})
      waking = new AbortController()
    }
  }
  const ended = loop()
  return {
    wake: () => waking.abort(),
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await ended
    },
  }
}
