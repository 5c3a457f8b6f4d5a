import type { HeldRun } from './held_run.ts'
import { followSession } from './move_disks.ts'
import type { Means } from './run.ts'
import { State } from './run_row.ts'

/** Reads, decodes and proves every chunk of a backup; a block that is not proven fails the run. */
export async function runVerify(
  run: HeldRun,
  { services }: Means,
  signal: AbortSignal,
): Promise<void> {
  const request = run.plan.verify
  if (!request) throw new Error(`run ${run.id} verifies nothing`)
  await run.enter(State.MOVING)
  const start = () => services.move.startVerify(request, { signal })
  await followSession(services.move, run, start, signal)
}
