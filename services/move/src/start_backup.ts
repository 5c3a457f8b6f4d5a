import type { Logger } from '@blockferry/core'
import { argumentInvalid } from '@blockferry/errors'
import type { Compression, Manifest, Repository } from '@blockferry/native'
import { type backup as catalog, move, msFromDuration, type snapshot } from '@blockferry/proto'
import { backupFromManifest } from '@blockferry/repository'
import { planBackup } from './backup_plan.ts'
import { BackupSession, type MoveLimits } from './backup_session.ts'
import { checkFreeSpace } from './free_space.ts'
import { MovingDisk } from './moving_disk.ts'
import type { HeldRepository, Repositories } from './repositories.ts'
import { Session } from './session.ts'
import { fenced, type Sessions } from './sessions.ts'

/** A session whose backup is, or will be, committed. */
export interface BackupOutcome extends Session {
  readonly pointId: string
  readonly token: move.FencingToken
  commit(decisions: catalog.DecisionNote[]): Promise<catalog.Backup>
}

export const isBackup = (session: Session): session is BackupOutcome => 'commit' in session

/** The session that the request means: the one that is there, or a new one. */
export async function startBackup(
  request: move.StartBackupRequest,
  sessions: Sessions,
  repositories: Repositories,
  limits: MoveLimits,
  log: Logger,
): Promise<Session> {
  const { point, token } = request
  if (!point) throw argumentInvalid('point', '', 'give the point to read')
  if (!token) throw argumentInvalid('token', '', 'give the fencing token of the run')
  const isSame = (session: Session): boolean =>
    isBackup(session) &&
    session.pointId === point.pointId &&
    session.token.incarnation === token.incarnation &&
    session.token.number === token.number
  return await sessions.startOnce(request.sessionId, isSame, async () => {
    const held = await repositories.hold(request.folder, 'write')
    try {
      const session = await openBackup(request, { point, token, held }, limits, log)
      // The native side refuses the older session's commit by now; here it stops reading, too.
      if (session instanceof BackupSession) await stopOlder(sessions, session)
      return session
    } catch (thrown) {
      held[Symbol.dispose]()
      throw thrown
    }
  })
}

interface Opening {
  point: snapshot.Point
  token: move.FencingToken
  held: HeldRepository
}

async function openBackup(
  request: move.StartBackupRequest,
  opening: Opening,
  limits: MoveLimits,
  log: Logger,
): Promise<Session> {
  const { point, token, held } = opening
  const { repository } = held
  const described = describedBy(request)
  const backupId = backupIdOf(described.name || `backups/${request.sessionId}`)
  const identity = described.vmIdentity || (point.vm?.identity ?? '')
  if (identity === '') throw argumentInvalid('backup.vm_identity', '', 'name the VM')
  const pseudonym = repository.vmPseudonym(identity)
  const manifests = await manifestsOf(repository, pseudonym)
  const committed = manifests.find(({ point_id }) => point_id === point.pointId)
  if (committed) {
    held[Symbol.dispose]()
    return new CommittedSession(request.sessionId, committed, token, log)
  }
  const spaceNotes = await checkFreeSpace(request.folder)
  // A request that cannot work opens nothing.
  planBackup(request, point, manifests)
  const compression = compressionOf(request.compression)
  const lockSeconds = lockSecondsOf(request.lockDuration)
  const native = await repository.openSession({
    vm_pseudonym: pseudonym,
    point_id: point.pointId,
    incarnation: tokenPart('token.incarnation', token.incarnation),
    number: tokenPart('token.number', token.number),
  })
  try {
    // What was listed before may be removed and collected by now; what is listed while the session is
    // open is waited for.
    const plan = planBackup(request, point, await manifestsOf(repository, pseudonym))
    plan.decisions.push(...spaceNotes)
    const key = `${request.folder}\0${pseudonym}`
    const work = {
      ...{ key, backupId, token, point, described, plan, compression, native, held },
      lockSeconds,
    }
    return new BackupSession(request.sessionId, work, limits, log)
  } catch (thrown) {
    await native.abort()
    throw thrown
  }
}

/** The point was committed by a process that ended before anybody heard of it. */
class CommittedSession extends Session implements BackupOutcome {
  readonly pointId: string
  readonly token: move.FencingToken
  readonly #manifest: Manifest

  constructor(id: string, manifest: Manifest, token: move.FencingToken, log: Logger) {
    const disks = manifest.disks.map((stored) => {
      const disk = new MovingDisk(stored.disk_id, stored.size_bytes)
      disk.finish(stored.root)
      return disk
    })
    super(id, move.Session_Kind.BACKUP, disks, log)
    this.pointId = manifest.point_id
    this.token = token
    this.#manifest = manifest
  }

  async commit(): Promise<catalog.Backup> {
    return backupFromManifest(this.#manifest)
  }

  protected async work(): Promise<void> {}
  protected async cleanUp(): Promise<void> {}
}

async function stopOlder(sessions: Sessions, session: BackupSession): Promise<void> {
  const older = sessions
    .all()
    .filter((other) => other instanceof BackupSession && other.key === session.key)
  await Promise.all(older.map((other) => other.stop(fenced(other.name))))
}

async function manifestsOf(repository: Repository, pseudonym: string): Promise<Manifest[]> {
  const listed = await repository.listManifests(pseudonym)
  // Nothing new is laid over a backup that somebody wants to be rid of.
  const kept = listed.filter(({ removed_seconds }) => removed_seconds === null)
  return kept.flatMap((entry) => (entry.kind === 'manifest' ? [entry.manifest] : []))
}

function describedBy(request: move.StartBackupRequest): catalog.Backup {
  if (request.backup) return request.backup
  throw argumentInvalid('backup', '', 'say what the manifest is to tell')
}

/** The last part of `backups/{backup}` or `repositories/{repository}/backups/{backup}`. */
function backupIdOf(name: string): string {
  const id = /^(?:repositories\/[^/]+\/)?backups\/([A-Za-z0-9._-]{1,63})$/.exec(name)?.[1]
  if (id !== undefined && !id.startsWith('.')) return id
  throw argumentInvalid('backup.name', name, 'give backups/{backup}: letters, digits, ., _ and -')
}

/** REQUIRES: what schedule has checked; anything else is refused by the native side. */
function compressionOf(asked: move.Compression | undefined): Compression {
  const { ZSTD, STORED } = move.Compression_Codec
  if (asked?.codec === ZSTD) return { codec: 'zstd', level: asked.level }
  return { codec: asked?.codec === STORED ? 'stored' : 'lz4', level: asked?.level ?? 0 }
}

function tokenPart(field: string, value: bigint): number {
  if (value >= 0n && value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value)
  throw argumentInvalid(field, String(value), 'give 0 to 2^53-1')
}

function lockSecondsOf(lock: move.StartBackupRequest['lockDuration']): number {
  const seconds = msFromDuration(lock) / 1000
  if (Number.isSafeInteger(seconds) && seconds >= 0) return seconds
  throw argumentInvalid('lock_duration', `${seconds} s`, 'give whole seconds')
}
