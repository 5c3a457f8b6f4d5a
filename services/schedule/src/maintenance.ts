// The collections, verifications and saves that repositories ask for by themselves. When one is due follows
// from the newest run of its kind, so nothing else is kept, and one that was started by hand counts.
import type { Logger } from '@blockferry/core'
import { type catalog, move, msFromDuration, schedule } from '@blockferry/proto'
import { isSilence } from './patience.ts'
import type { Queue } from './queue.ts'
import { hasEnded, Kind, type ShownRow } from './run_row.ts'
import type { RunStore } from './run_store.ts'
import type { Services } from './services.ts'

const pageSize = 500
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
  const collects = await occasion(
    Kind.COLLECT,
    repository,
    maintenance?.collectRepeatDuration,
    runs,
  )
  if (collects) {
    const request = schedule.StartCollectRequest.fromPartial({ repository: name })
    const { id } = await queue.collect(request, collects)
    log.info({ repository: name, run: id }, 'a collection is due')
  }
  const verifies = await occasion(Kind.VERIFY, repository, maintenance?.verifyRepeatDuration, runs)
  if (verifies) {
    const request = schedule.StartVerifyRequest.fromPartial({
      repository: name,
      level: move.VerifyLevel.BLOCKS,
      bytesPerSecond: maintenance?.verifyBytesPerSecond ?? 0n,
    })
    const { id } = await queue.verifyRepository(request, verifies)
    log.info({ repository: name, run: id }, 'a verification is due')
  }
  const saves = await occasion(Kind.SAVE, repository, maintenance?.saveRepeatDuration, runs)
  if (saves) {
    const { id } = await queue.save(name, saves)
    log.info({ repository: name, run: id }, 'a save is due')
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
  // A repository from a time that is still to come: the clock was ahead, and waiting for it is wrong.
  return nowMs - beganMs >= repeatMs || beganMs > nowMs
}
