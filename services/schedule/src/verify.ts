import { move } from '@blockferry/proto'
import type { HeldRun } from './held_run.ts'
import { followSession } from './move_disks.ts'
import { patiently } from './patience.ts'
import type { Means } from './run.ts'
import { State } from './run_row.ts'
import type { Services } from './services.ts'

const pageSize = 500

/**
 * Proves a backup or a repository; what is damaged fails the run. What was proven until then is noted
 * in either case, so that the next verification of the repository begins with the rest.
 */
export async function runVerify(
  run: HeldRun,
  { services }: Means,
  signal: AbortSignal,
): Promise<void> {
  const planned = run.plan.verify
  if (!planned) throw new Error(`run ${run.id} verifies nothing`)
  await run.enter(State.MOVING)
  const isOrdered = planned.backupId === '' && planned.level === move.VerifyLevel.BLOCKS
  const firstBackupIds = isOrdered ? await oldestProofFirst(run, services.catalog, signal) : []
  const request = { ...planned, firstBackupIds }
  const start = () => services.move.startVerify(request, { signal })
  try {
    await followSession(services.move, run, start, signal)
  } catch (thrown) {
    await note(run, services).catch((failure: unknown) => {
      run.log.warn({ err: failure }, 'what was proven was not noted')
    })
    throw thrown
  }
  await note(run, services)
}

/** Ids of the backups of the repository: those never proven, then by the age of their proof. */
async function oldestProofFirst(
  run: HeldRun,
  catalog: Services['catalog'],
  signal: AbortSignal,
): Promise<string[]> {
  const { recordMs, retryPauseMs } = run.limits
  const patience = { silentMs: recordMs, pauseMs: retryPauseMs, signal }
  const found: { id: string; provenMs: number }[] = []
  let pageToken = ''
  do {
    const request = { parent: run.row.repository, vm: '', pageSize, pageToken, showRemoved: true }
    const page = await patiently(() => catalog.listBackups(request, { signal }), patience)
    for (const { name, verifyTime } of page.backups) {
      const id = name.slice(name.lastIndexOf('/') + 1)
      found.push({ id, provenMs: verifyTime?.getTime() ?? 0 })
    }
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  return found.sort((one, other) => one.provenMs - other.provenMs).map(({ id }) => id)
}

async function note(run: HeldRun, { move: calls, catalog }: Services): Promise<void> {
  run.left.throwIfAborted()
  const name = `sessions/${run.id}`
  const { session } = await calls.getSession({ name }, { signal: run.left })
  const report = session?.verifyReport
  if (!report) return
  await run.show({ verifyReport: report })
  const { provenBackups, damagedBackups } = report
  if (provenBackups.length + damagedBackups.length === 0) return
  const noted = { parent: run.row.repository, provenBackups, damagedBackups }
  const { recordMs, retryPauseMs } = run.limits
  await patiently(() => catalog.recordVerification(noted, { signal: run.left }), {
    silentMs: recordMs,
    pauseMs: retryPauseMs,
    signal: run.left,
  })
}
