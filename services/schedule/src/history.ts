import { backup as proto, type snapshot } from '@blockferry/proto'
import type { HeldRun } from './held_run.ts'
import { patiently } from './patience.ts'
import { State } from './run_row.ts'
import type { Services } from './services.ts'

type Backup = proto.Backup

/** What the repository holds of a VM. It is the truth about what is committed; our database is not. */
export interface History {
  /** Oldest first. */
  backups: Backup[]
}

const pageSize = 500
/** Bases offered for a point; bitmaps are kept for two. */
const basesMax = 32

export const backupIdOf = (backup: Backup): string => backup.name.split('/').at(-1) ?? ''

/** Reads all manifests of one VM. */
export async function readHistory(
  move: Services['move'],
  run: HeldRun,
  signal: AbortSignal,
  vmIdentity = run.row.vmIdentity,
): Promise<History> {
  const { moverSilentMs, runDeadlineMs, retryPauseMs } = run.limits
  // Whether a commit that was begun took place is known to the mover alone: it is waited for.
  const silentMs = run.row.state === State.COMMITTING ? runDeadlineMs : moverSilentMs
  const patience = { silentMs, pauseMs: retryPauseMs, signal }
  const backups: Backup[] = []
  let pageToken = ''
  do {
    const request = {
      folder: run.plan.repositoryFolder,
      vmIdentity,
      pageSize,
      pageToken,
    }
    const page = await patiently(() => move.listManifests(request, { signal }), patience)
    for (const { path, reason } of page.damagedManifests) {
      run.log.warn({ path, reason }, 'a manifest of the repository cannot be read')
    }
    backups.push(...page.backups)
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  return { backups }
}

/** The backup that this run committed, maybe in an earlier life; null before its commit. */
export const ownBackup = ({ backups }: History, runId: string): Backup | null =>
  backups.find((backup) => backupIdOf(backup) === runId) ?? null

/** What a point is told about the past of its VM. */
export interface Bases {
  bases: snapshot.BaseCandidate[]
  committedPointIds: string[]
  keptPointIds: string[]
}

/** The bases of a backup at `level`, newest first. */
export function basesFor({ backups }: History, level: proto.Level, suppliedBase: string): Bases {
  // Nothing new counts from a backup that somebody wants to be rid of.
  const newestFirst = backups.filter(({ removeTime }) => removeTime === undefined).reverse()
  const candidates =
    level === proto.Level.FULL || suppliedBase !== ''
      ? []
      : level === proto.Level.DIFFERENTIAL
        ? newestFirst.filter(isFull)
        : newestFirst
  const kept = [newestFirst[0], newestFirst.find(isFull)].flatMap((each) => each?.pointId ?? [])
  return {
    bases: candidates.slice(0, basesMax).map((backup) => ({
      backup: backupIdOf(backup),
      pointId: backup.pointId,
      disks: backup.disks.map(({ disk, sizeBytes }) => ({ disk, sizeBytes })),
    })),
    committedPointIds: backups.map(({ pointId }) => pointId),
    keptPointIds: [...new Set(kept)],
  }
}

const isFull = ({ level, decisions }: Backup): boolean =>
  level === proto.Level.FULL || decisions.some(({ decision }) => decision === 'FIRST_BACKUP')

/** The number of the VM's next backup in its repository. */
export const nextSequence = ({ backups }: History): bigint =>
  backups.reduce((last, { sequence }) => (sequence > last ? sequence : last), 0n) + 1n

/** Notes what the past of the VM means for a run. */
export async function decideLevel(run: HeldRun, history: History): Promise<void> {
  const { level } = run.row.detail
  if (history.backups.length === 0) {
    await run.decide(
      'FIRST_BACKUP',
      `repository ${run.row.repository} has no backup of this VM: everything allocated is read`,
    )
  } else if (level === proto.Level.FULL) {
    await run.decide('FULL_REQUESTED', 'a full was asked for: everything allocated is read')
  } else if (level === proto.Level.DIFFERENTIAL && !history.backups.some(isFull)) {
    await run.decide(
      'BASE_NOT_IN_REPOSITORY',
      `repository ${run.row.repository} has no full of this VM: everything allocated is read`,
    )
  }
}
