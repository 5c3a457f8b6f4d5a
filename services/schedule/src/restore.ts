import { BackupError } from '@blockferry/errors'
import { snapshot } from '@blockferry/proto'
import { type HeldRun, RunCancelled } from './held_run.ts'
import { cancelSession, followSession } from './move_disks.ts'
import { patiently } from './patience.ts'
import type { Means } from './run.ts'
import { State } from './run_row.ts'
import type { Services } from './services.ts'

/** Restores the planned disks. Over a VM's own images only while the VM is off. */
export async function runRestore(
  run: HeldRun,
  { services }: Means,
  signal: AbortSignal,
): Promise<void> {
  const request = run.plan.restore
  if (!request) throw new Error(`run ${run.id} restores nothing`)
  await run.enter(State.MOVING)
  if (request.disks.some(({ replace }) => replace)) await checkOff(run, services, signal)
  await followSession(
    services.move,
    run,
    () => services.move.startRestore(request, { signal }),
    signal,
  )
}

/**
 * Removes images that are not complete; complete ones only ever appear by rename. Images that a
 * differential restore has begun to change stay as far as they are, marked.
 */
export const undoRestore = (run: HeldRun, services: Services): Promise<void> =>
  cancelSession(services.move, run, run.id)

/** What a run says that somebody asked to stop. */
export function cancelledOf({ id, plan }: HeldRun): BackupError {
  if (!plan.restore?.differential) return new RunCancelled()
  return new BackupError(
    'CANCELLED',
    `the run was cancelled; images that it had begun to change are half restored and marked: ask for the same restore again, or for another one in place`,
    { run: `runs/${id}` },
  )
}

async function checkOff(run: HeldRun, services: Services, signal: AbortSignal): Promise<void> {
  const { snapshotSilentMs, retryPauseMs } = run.limits
  const name = run.row.vmIdentity
  const { vm } = await patiently(() => services.snapshot.getVm({ name }, { signal }), {
    silentMs: snapshotSilentMs,
    pauseMs: retryPauseMs,
    signal,
  })
  refuseUnlessOff(vm, run.row.vmDisplayName)
}

/** Errors: TARGET_IN_USE. */
export function refuseUnlessOff(vm: snapshot.Vm | undefined, shownName: string): void {
  if (vm?.state === snapshot.VmState.OFF) return
  throw new BackupError(
    'TARGET_IN_USE',
    `restore over the images of VM ${shownName}: the VM is not off; shut it down, or restore to another folder`,
    { vm: vm?.identity ?? shownName },
  )
}
