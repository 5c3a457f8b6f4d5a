import { newPointId, sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { durationFromMs, snapshot } from '@blockferry/proto'
import type { HeldRun } from './held_run.ts'
import { basesFor, type History } from './history.ts'
import { hasReason, isSilence, patiently } from './patience.ts'
import { State } from './run_row.ts'
import type { Services } from './services.ts'

/**
 * A point that this process holds for a run, from the answer of BeginPoint until it is disposed
 * of. Whether its bitmaps stay is decided by `committed`; a point that is not committed is left to
 * undoBackup, which also knows those of earlier lives.
 */
export class HeldPoint implements AsyncDisposable {
  readonly point: snapshot.Point
  private readonly calls: Services['snapshot']
  private readonly run: HeldRun
  private readonly losing = new AbortController()
  private readonly ending = new AbortController()
  private readonly holding: Promise<void>
  private wasSilent = false
  private committed = false

  constructor(point: snapshot.Point, calls: Services['snapshot'], run: HeldRun) {
    this.point = point
    this.calls = calls
    this.run = run
    this.holding = this.hold()
  }

  /** Aborted with the failure when the point is gone. */
  get lost(): AbortSignal {
    return this.losing.signal
  }

  /** Whether the snapshot service stopped answering meanwhile, maybe because it was restarted. */
  get snapshotWasSilent(): boolean {
    return this.wasSilent
  }

  /** The manifest is there: the point's bitmaps stay. */
  keep(): void {
    this.committed = true
  }

  /** Resolves when everything that was read is of one instant. */
  async confirm(signal: AbortSignal): Promise<void> {
    const { snapshotSilentMs, retryPauseMs, confirmPointMs } = this.run.limits
    const { pointId } = this.point
    const options = { signal, deadlineMs: confirmPointMs }
    await patiently(() => this.calls.confirmPoint({ pointId }, options), {
      silentMs: snapshotSilentMs,
      pauseMs: retryPauseMs,
      signal,
    })
  }

  /** Why the disks could not be read: the snapshot service may know more than the mover. */
  async explain(thrown: unknown, signal: AbortSignal): Promise<unknown> {
    if (!hasReason(thrown, ...sourceReasons)) return thrown
    const { pointId } = this.point
    const told = await this.calls.confirmPoint({ pointId }, { signal }).then(
      () => null,
      (failure: unknown) => failure,
    )
    return told === null || isSilence(told) || hasReason(told, 'INTERNAL') ? thrown : told
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.ending.abort()
    await this.holding
    if (!this.committed || this.run.left.aborted) return
    await releasePoint(this.calls, this.run, this.point.pointId, true)
  }

  private async hold(): Promise<void> {
    const { pointHoldMs, pointLeaseMs } = this.run.limits
    const signal = AbortSignal.any([this.ending.signal, this.run.left])
    const request = { pointId: this.point.pointId, leaseDuration: durationFromMs(pointLeaseMs) }
    while (!signal.aborted) {
      try {
        await sleep(pointHoldMs, signal)
        await this.calls.holdPoint(request, { signal, deadlineMs: pointHoldMs })
      } catch (thrown) {
        if (signal.aborted) return
        if (isSilence(thrown)) this.wasSilent = true
        else return this.losing.abort(thrown)
      }
    }
  }
}

const sourceReasons = [
  'SOURCE_UNREACHABLE',
  'SOURCE_READ_FAILED',
  'SOURCE_STALLED',
  'DISK_SIZE_MISMATCH',
] as const

/**
 * The run's point: the one that an earlier life took, if it is still there, else a new one over
 * all disks of the VM, wherever the VM is now. Errors: POINT_NOT_FOUND (an earlier one), VM_BUSY, …
 */
export async function takeSnapshot(
  calls: Services['snapshot'],
  run: HeldRun,
  history: History,
  signal: AbortSignal,
): Promise<HeldPoint> {
  const point = run.row.point
    ? await holdAgain(calls, run, run.row.point, signal)
    : await beginPoint(calls, run, history, signal)
  return new HeldPoint(point, calls, run)
}

/** Releases a point, for as long as the snapshot service may be silent. Idempotent. */
export async function releasePoint(
  calls: Services['snapshot'],
  run: HeldRun,
  pointId: string,
  committed: boolean,
): Promise<void> {
  const { COMMITTED, DROPPED } = snapshot.PointOutcome
  const outcome = committed ? COMMITTED : DROPPED
  const { snapshotSilentMs, retryPauseMs, releasePointMs } = run.limits
  const options = { signal: run.left, deadlineMs: releasePointMs }
  try {
    await patiently(() => calls.releasePoint({ pointId, outcome }, options), {
      silentMs: snapshotSilentMs,
      pauseMs: retryPauseMs,
      signal: run.left,
    })
    run.log.info({ point: pointId, committed }, 'point released')
  } catch (thrown) {
    if (run.left.aborted || hasReason(thrown, 'POINT_NOT_FOUND')) return
    // Nobody holds it any more, so its lease ends and the reaper of the snapshot service takes it.
    run.log.warn({ err: thrown, point: pointId }, 'point not released; its reaper removes it')
  }
}

async function holdAgain(
  calls: Services['snapshot'],
  run: HeldRun,
  point: snapshot.Point,
  signal: AbortSignal,
): Promise<snapshot.Point> {
  const { snapshotSilentMs, retryPauseMs, pointLeaseMs } = run.limits
  const request = { pointId: point.pointId, leaseDuration: durationFromMs(pointLeaseMs) }
  await patiently(() => calls.holdPoint(request, { signal }), {
    silentMs: snapshotSilentMs,
    pauseMs: retryPauseMs,
    signal,
  })
  await run.decide(
    'RESUMED',
    `the run goes on with point ${point.pointId} after a process of Blockferry had ended`,
  )
  return point
}

async function beginPoint(
  calls: Services['snapshot'],
  run: HeldRun,
  history: History,
  signal: AbortSignal,
): Promise<snapshot.Point> {
  const { backup: asked, repositoryId } = run.plan
  if (!asked) throw new Error(`run ${run.id} backs nothing up`)
  const { snapshotSilentMs, retryPauseMs, pointLeaseMs, beginPointMs } = run.limits
  // Without an answer to BeginPoint nothing was read of a point, so its id may be used again.
  if (run.row.pointIds.length === 0) await run.enterWithPoint(State.SNAPSHOTTING, newPointId())
  else await run.enter(State.SNAPSHOTTING)
  const request: snapshot.BeginPointRequest = {
    pointId: run.row.pointIds.at(-1) ?? '',
    vm: asked.vm,
    images: asked.images,
    repositoryId,
    ...basesFor(history, run.row.detail.level, asked.baseBackup),
    skipQuiesce: asked.skipQuiesce,
    leaseDuration: durationFromMs(pointLeaseMs),
  }
  const { point } = await waitForOwn(run, signal, () =>
    patiently(() => calls.beginPoint(request, { signal, deadlineMs: beginPointMs }), {
      silentMs: snapshotSilentMs,
      pauseMs: retryPauseMs,
      signal,
    }),
  )
  if (!point) throw new BackupError('INTERNAL', 'the snapshot service answered without a point')
  await run.setPoint(point, {
    consistency: point.consistency,
    freezeDuration: point.freezeDuration,
    pauseDuration: point.pauseDuration,
    uncoveredDisks: point.vm?.uncoveredDisks ?? [],
  })
  return point
}

// A run that just failed may have left a point of ours that the reaper has not reached yet; the
// row of this run proves that no other run of ours works on the VM.
function waitForOwn<T>(run: HeldRun, signal: AbortSignal, ask: () => Promise<T>): Promise<T> {
  const { pointBusyMs, retryPauseMs } = run.limits
  const waitFor = (thrown: unknown) => hasReason(thrown, 'VM_BUSY')
  return patiently(ask, { silentMs: pointBusyMs, pauseMs: retryPauseMs, signal, waitFor })
}
