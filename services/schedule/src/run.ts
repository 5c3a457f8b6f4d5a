// A backup from end to end. Every step is idempotent under the run's id and written down before
// it is done: after a crash the row and the repository say how far it came, and the same function
// runs again.
import { newPointId } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import type { move, backup as proto, snapshot } from '@blockferry/proto'
import { programVersion } from './config.ts'
import { type HeldPoint, releasePoint, takeSnapshot } from './held_point.ts'
import type { HeldRun } from './held_run.ts'
import { decideLevel, type History, nextSequence, ownBackup, readHistory } from './history.ts'
import { cancelSession, followSession } from './move_disks.ts'
import { hasReason, patiently } from './patience.ts'
import type { PolicyStore } from './policy_store.ts'
import { State, sessionIdOf } from './run_row.ts'
import type { RunStore } from './run_store.ts'
import type { Services } from './services.ts'
import { nameDisks } from './supplied_changes.ts'

type Backup = proto.Backup

/** What the steps of a run work with. */
export interface Means {
  services: Services
  store: RunStore
  policies: PolicyStore
}

export async function runBackup(run: HeldRun, means: Means, signal: AbortSignal): Promise<Backup> {
  const { services } = means
  if (run.row.state === State.COMMITTING) await endCommit(services.move, run, signal)
  const history = await readHistory(services.move, run, signal) // the repository is the truth
  const committed = ownBackup(history, run.id) // by an earlier life of this run
  const backup = committed
    ? await releaseCommitted(run, services, committed)
    : await makeBackup(run, means, history, signal)
  await recordBackup(services.catalog, run, backup, signal)
  return backup
}

// A commit that an earlier life asked for may still be under way: only when its session has ended
// does the repository say for good whether the backup exists, and so whether its bitmaps stay.
export async function endCommit(
  calls: Services['move'],
  run: HeldRun,
  signal: AbortSignal,
): Promise<void> {
  const name = `sessions/${sessionIdOf(run.id, run.row.pointIds.at(-1) ?? '')}`
  const { runDeadlineMs, retryPauseMs } = run.limits
  const patience = { silentMs: runDeadlineMs, pauseMs: retryPauseMs, signal }
  await patiently(() => calls.cancelSession({ name }, { signal }), patience).catch((thrown) => {
    if (!hasReason(thrown, 'SESSION_NOT_FOUND')) throw thrown
  })
}

async function releaseCommitted(run: HeldRun, services: Services, backup: Backup): Promise<Backup> {
  await run.enter(State.RECORDING)
  await releasePoint(services.snapshot, run, backup.pointId, true)
  return backup
}

/** One instant of all disks, moved and committed. A point lost to a crash is taken anew, once. */
async function makeBackup(
  run: HeldRun,
  means: Means,
  history: History,
  signal: AbortSignal,
): Promise<Backup> {
  await decideLevel(run, history)
  for (;;) {
    try {
      return await backUpPoint(run, means, history, signal)
    } catch (thrown) {
      if (!(thrown instanceof PointGone) || run.row.pointIds.length > 1) throw causeOf(thrown)
      await run.decide(
        'POINT_RETAKEN',
        `the first point was lost before the commit (${(thrown.cause as Error).message}): a new one is taken and read from the start`,
      )
      await undoBackup(run, means.services)
      await run.enterWithPoint(State.SNAPSHOTTING, newPointId())
    }
  }
}

async function backUpPoint(
  run: HeldRun,
  means: Means,
  history: History,
  signal: AbortSignal,
): Promise<Backup> {
  const calls = means.services.snapshot
  const resumed = run.row.point !== null
  // Finds the VM where it is now. Committed, the point is released here; else by undoBackup.
  await using held = await takeSnapshot(calls, run, history, signal).catch((thrown: unknown) => {
    // A new point that is lost was taken by a snapshot service that ended before it could say so.
    throw asPointGone(thrown, true)
  })
  try {
    const reading = AbortSignal.any([signal, held.lost])
    await moveDisks(run, means, held, history, reading) // resumes where a crash left it
    await held.confirm(signal)
    const backup = await commitBackup(run, means, held, history, signal)
    held.keep()
    await run.enter(State.RECORDING)
    return backup
  } catch (thrown) {
    const told = await held.explain(thrown, signal)
    throw asPointGone(told, resumed || held.snapshotWasSilent)
  }
}

/** A point that vanished through a crash of ours, so that a new one is worth it. */
class PointGone extends Error {}

// A point that is not found was given up by the snapshot service, after nobody held it. One that
// is lost went with the hypervisor, unless a process of ours was away, too.
function asPointGone(thrown: unknown, afterCrash: boolean): unknown {
  const gone =
    hasReason(thrown, 'POINT_NOT_FOUND') || (afterCrash && hasReason(thrown, 'POINT_LOST'))
  return gone ? new PointGone('the point is gone', { cause: thrown }) : thrown
}

const causeOf = (thrown: unknown): unknown => (thrown instanceof PointGone ? thrown.cause : thrown)

/** Of this database in the run's repository: with the run's number it is its fencing token. */
export async function drawnIncarnation(
  run: HeldRun,
  { services, store }: Means,
  signal: AbortSignal,
): Promise<bigint> {
  const { repositoryFolder: folder, repositoryId } = run.plan
  const draw = async () => (await services.move.drawIncarnation({ folder }, { signal })).incarnation
  return await patiently(() => store.incarnation(repositoryId, draw), {
    silentMs: run.limits.moverSilentMs,
    pauseMs: run.limits.retryPauseMs,
    signal,
  })
}

async function moveDisks(
  run: HeldRun,
  means: Means,
  { point }: HeldPoint,
  history: History,
  signal: AbortSignal,
): Promise<void> {
  const { services } = means
  const asked = run.plan.backup
  await run.enter(State.MOVING)
  const suppliedChanges = await nameSuppliedChanges(run, point)
  const incarnation = await drawnIncarnation(run, means, signal)
  const start = () =>
    services.move.startBackup(
      {
        sessionId: sessionIdOf(run.id, point.pointId),
        folder: run.plan.repositoryFolder,
        token: { incarnation, number: run.row.tokenNumber },
        point,
        backup: manifestOf(run, point, nextSequence(history), asked?.baseBackup ?? ''),
        suppliedChanges,
        compression: asked?.compression,
        lockDuration: asked?.lockDuration,
      },
      { signal },
    )
  await followSession(services.move, run, start, signal)
}

// What the manifest says besides what the mover finds out.
function manifestOf(
  run: HeldRun,
  point: snapshot.Point,
  sequence: bigint,
  suppliedBase: string,
): Backup {
  const { row } = run
  const pointBase = point.disks.find(({ baseBackup }) => baseBackup !== '')?.baseBackup ?? ''
  return {
    name: row.detail.backup,
    vmIdentity: row.vmIdentity,
    vmDisplayName: row.vmDisplayName,
    policy: row.detail.policy,
    level: row.detail.level,
    method: point.method,
    consistency: point.consistency,
    pointId: point.pointId,
    baseBackup: suppliedBase || pointBase,
    sequence,
    pointTime: point.pointTime,
    startTime: row.startTime ?? undefined,
    freezeDuration: point.freezeDuration,
    pauseDuration: point.pauseDuration,
    disks: [],
    uncoveredDisks: point.vm?.uncoveredDisks ?? [],
    decisions: row.detail.decisions,
    driver: point.driver,
    vmConfigJson: point.vmConfigJson,
    version: programVersion,
    host: hostOf(point.vm?.name ?? ''),
    run: `runs/${run.id}`,
    held: false,
    damaged: false,
    tags: row.plan.backup?.tags ?? [],
  }
}

/** `hosts/a/vms/b` → `hosts/a`; empty for images that belong to no host. */
export const hostOf = (vmName: string): string => /^hosts\/[^/]+/.exec(vmName)?.[0] ?? ''

async function nameSuppliedChanges(
  run: HeldRun,
  point: snapshot.Point,
): Promise<move.SuppliedChanges[]> {
  const disks = point.disks.map(({ disk }) => disk)
  const named = nameDisks(run.plan.backup?.suppliedChanges ?? [], disks)
  for (const { disk } of named) {
    await run.decide('CHANGED_BLOCKS_SUPPLIED', 'only blocks of the supplied list are read', disk)
  }
  return named
}

// From here on the run cannot be cancelled. An answer that does not come leaves open whether the
// manifest was written, so the mover is asked until it says; a mover that was restarted meanwhile
// no longer knows the session, but the repository and the checkpoint do.
async function commitBackup(
  run: HeldRun,
  means: Means,
  held: HeldPoint,
  history: History,
  signal: AbortSignal,
): Promise<Backup> {
  const { move: calls } = means.services
  const name = `sessions/${sessionIdOf(run.id, held.point.pointId)}`
  for (let restarts = 0; ; restarts++) {
    signal.throwIfAborted()
    await run.enterForGood(State.COMMITTING)
    try {
      return await commitOnce(calls, run, name)
    } catch (thrown) {
      run.left.throwIfAborted()
      const own = ownBackup(await readHistory(calls, run, run.left), run.id)
      if (own) return own
      const restarted = hasReason(thrown, 'SESSION_NOT_FOUND')
      if (!restarted || restarts >= run.limits.sessionRestartsMax) throw thrown
    }
    await moveDisks(run, means, held, history, AbortSignal.any([signal, held.lost]))
    await held.confirm(signal)
  }
}

/** Asks the mover until it says whether the session's backup is committed. */
export async function commitOnce(
  calls: Services['move'],
  run: HeldRun,
  name: string,
): Promise<Backup> {
  const { commitMs, retryPauseMs, runDeadlineMs } = run.limits
  const { decisions } = run.row.detail
  const { backup } = await patiently(
    () => calls.commitBackup({ name, decisions }, { signal: run.left, deadlineMs: commitMs }),
    { silentMs: runDeadlineMs, pauseMs: retryPauseMs, signal: run.left },
  )
  if (!backup) throw new BackupError('INTERNAL', 'the move service committed without a backup')
  return backup
}

// The backup exists already: a catalog that does not answer, or refuses, is mended by a rebuild
// and fails no run.
export async function recordBackup(
  catalog: Services['catalog'],
  run: HeldRun,
  backup: Backup,
  signal: AbortSignal,
): Promise<void> {
  const { recordMs, retryPauseMs } = run.limits
  const recorded = { ...backup, name: run.row.detail.backup }
  try {
    await patiently(() => catalog.recordBackup({ backup: recorded }, { signal }), {
      silentMs: recordMs,
      pauseMs: retryPauseMs,
      signal,
    })
  } catch (thrown) {
    if (run.left.aborted) throw thrown
    run.log.error({ err: thrown }, 'backup not recorded; `blockferry catalog rebuild` lists it')
  }
}

/**
 * Removes what a run has made so far, in this life and in earlier ones: the reader ends before
 * its point, unless it hangs. Idempotent. REQUIRES: nothing of the run is committed.
 */
export async function undoBackup(run: HeldRun, services: Services): Promise<void> {
  for (const pointId of run.row.pointIds) {
    await cancelSession(services.move, run, sessionIdOf(run.id, pointId))
    await releasePoint(services.snapshot, run, pointId, false)
  }
}
