// The collections, verifications and saves that repositories ask for by themselves. When one is due follows
// from the newest run of its kind, so nothing else is kept, and one that was started by hand counts.
import type { Logger } from '@blockferry/core'
import { asBackupError } from '@blockferry/errors'
import { type catalog, move, msFromDuration, schedule } from '@blockferry/proto'
import { isSilence } from './patience.ts'
import type { Queue } from './queue.ts'
import { hasEnded, Kind, type ShownRow, State } from './run_row.ts'
import type { RunStore } from './run_store.ts'
import type { Services } from './services.ts'

const pageSize = 500
/** After a run that failed or was cancelled. */
const againMs = 3_600_000
/** The clocks of two services may differ by so much. */
const skewMs = 3_600_000
/** Longer than the longest repeat: the last run of each kind says when the next is due. */
const runsKeptMs = 400 * 24 * 3_600_000

/** Queues what is due, and forgets runs of long ago; safe to repeat, and for any number of processes at once. */
export async function startDueMaintenance(
  runs: RunStore,
  queue: Queue,
  catalog: Services['catalog'],
  log: Logger,
): Promise<void> {
  await runs.forgetEnded(runsKeptMs)
  let pageToken = ''
  do {
    const page = await catalog.listRepositories({ pageSize, pageToken })
    for (const repository of page.repositories) {
      try {
        await startDueOf(repository, runs, queue, log)
      } catch (thrown) {
        // It stays due, and keeps no other repository from its turn.
        const level = isSilence(thrown) ? 'warn' : 'error'
        log[level]({ err: thrown, repository: repository.name }, 'maintenance is due and waits')
      }
    }
    pageToken = page.nextPageToken
  } while (pageToken !== '')
}

async function startDueOf(
  repository: catalog.Repository,
  runs: RunStore,
  queue: Queue,
  log: Logger,
): Promise<void> {
  const { name, maintenance } = repository
  const chores: [Kind, catalog.Maintenance['undoDuration'], (key: string) => Promise<ShownRow>][] =
    [
      [
        Kind.COLLECT,
        maintenance?.collectRepeatDuration,
        (key) => queue.collect(schedule.StartCollectRequest.fromPartial({ repository: name }), key),
      ],
      [
        Kind.VERIFY,
        maintenance?.verifyRepeatDuration,
        (key) => {
          const level = move.VerifyLevel.BLOCKS
          const bytesPerSecond = maintenance?.verifyBytesPerSecond ?? 0n
          const request = { repository: name, level, bytesPerSecond }
          return queue.verifyRepository(schedule.StartVerifyRequest.fromPartial(request), key)
        },
      ],
      [Kind.SAVE, maintenance?.saveRepeatDuration, (key) => queue.save(name, key)],
    ]
  for (const [kind, repeat, start] of chores) {
    const key = await occasion(kind, repository, repeat, runs)
    if (key === null) continue
    // One that cannot be queued is seen as a failed run, and keeps none of the others from its turn.
    const run = await start(key).catch((thrown: unknown) => {
      const failure = asBackupError(thrown)
      if (!failure || isSilence(failure)) throw thrown
      return queue.failedMaintenance(kind, name, key, failure)
    })
    log.info({ repository: name, run: run.id, kind }, 'maintenance is due')
  }
}

/** Names this time of doing it, the same in all processes that see it due; null: it is not due. */
async function occasion(
  kind: Kind,
  { name, createTime }: catalog.Repository,
  repeat: catalog.Maintenance['collectRepeatDuration'],
  runs: RunStore,
): Promise<string | null> {
  if (!repeat) return null
  const { row, count, nowMs } = await runs.newestOfRepository(kind, name)
  const beganMs = (row?.createTime ?? createTime)?.getTime() ?? 0
  if (!isDue(row, beganMs, msFromDuration(repeat), nowMs)) return null
  return `maintenance/${schedule.run_KindToJSON(kind)}/${name}/${row?.id ?? ''}.${count}`
}

function isDue(last: ShownRow | null, beganMs: number, repeatMs: number, nowMs: number): boolean {
  if (last && !hasEnded(last.state)) return false
  // What failed or was cancelled is not done.
  const waitMs = last && last.state !== State.SUCCEEDED ? Math.min(repeatMs, againMs) : repeatMs
  // A repository from a time that is still to come: the clock was ahead, and waiting for it is wrong.
  return nowMs - beganMs >= waitMs || beganMs > nowMs + skewMs
}
