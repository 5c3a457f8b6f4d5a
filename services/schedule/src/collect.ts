import type { HeldRun } from './held_run.ts'
import { followSession } from './move_disks.ts'
import { hasReason, patiently } from './patience.ts'
import { drawnIncarnation, type Means } from './run.ts'
import { State } from './run_row.ts'

/** Gives back the space of what no backup needs; the catalog forgets the backups that went for good. */
export async function runCollect(run: HeldRun, means: Means, signal: AbortSignal): Promise<void> {
  const request = run.plan.collect
  if (!request) throw new Error(`run ${run.id} collects nothing`)
  const { move } = means.services
  await run.enter(State.MOVING)
  const incarnation = await drawnIncarnation(run, means, signal)
  const token = { incarnation, number: run.row.tokenNumber }
  const start = () => move.startCollect({ ...request, token }, { signal })
  try {
    const { collectReport } = await followSession(move, run, start, signal)
    if (collectReport) await run.show({ collectReport })
  } catch (error) {
    // Some backups may be gone all the same. What the collection failed of is what is told.
    if (!request.dryRun) await forgetDropped(run, means, signal).catch(() => {})
    throw error
  }
  if (!request.dryRun) await forgetDropped(run, means, signal)
}

async function forgetDropped(run: HeldRun, means: Means, signal: AbortSignal): Promise<void> {
  const { catalog } = means.services
  await run.enter(State.RECORDING)
  const { recordMs, retryPauseMs } = run.limits
  try {
    await patiently(() => catalog.rebuildCatalog({ name: run.row.repository }, { signal }), {
      silentMs: recordMs,
      pauseMs: retryPauseMs,
      signal,
    })
  } catch (thrown) {
    // Collected without a key: the catalog cannot look until it is unlocked and rebuilt.
    if (!hasReason(thrown, 'KEY_MISSING')) throw thrown
  }
}
