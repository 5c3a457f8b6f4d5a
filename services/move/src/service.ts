import type { Logger } from '@blockferry/core'
import { argumentInvalid, BackupError } from '@blockferry/errors'
import type { KeySlot, ListedManifest, RepositoryInfo } from '@blockferry/native'
import { durationFromMs, keySlot, move, msFromDuration } from '@blockferry/proto'
import { checkRate } from '@blockferry/repository'
import type { Handlers } from '@blockferry/rpc'
import type { MoveLimits } from './backup_session.ts'
import { changeBackup } from './change_backup.ts'
import { CheckSession } from './check_session.ts'
import { CollectSession } from './collect_session.ts'
import type { MoveConfig } from './config.ts'
import { DifferentialSession } from './differential_session.ts'
import { findManifest } from './find_manifest.ts'
import { listManifests } from './list_manifests.ts'
import type { HeldRepository, Repositories } from './repositories.ts'
import { RestoreSession } from './restore_session.ts'
import type { Session } from './session.ts'
import { SessionWatch } from './session_watch.ts'
import type { Sessions } from './sessions.ts'
import { isBackup, startBackup } from './start_backup.ts'
import { openDifferential } from './start_differential.ts'
import { openRestore } from './start_restore.ts'
import { VerifyAllSession, VerifySession } from './verify_session.ts'

export interface MoveParts {
  config: MoveConfig
  repositories: Repositories
  sessions: Sessions
  limits: MoveLimits
  log: Logger
}

/** The RPCs of the move service. */
export function moveHandlers(parts: MoveParts): Handlers<move.MoveServiceServer> {
  const { config, repositories, sessions, limits, log } = parts
  const watched = new SessionWatch(config.sessionDeadMs)

  /** Opens a session that reads `folder`; it gives the repository back when it ends. */
  const startReading = async (
    { sessionId, folder }: { sessionId: string; folder: string },
    isSame: (session: Session) => boolean,
    open: (held: HeldRepository) => Promise<Session>,
  ): Promise<{ session: move.Session }> => {
    const session = await sessions.startOnce(sessionId, isSame, async () => {
      const held = await repositories.hold(folder, 'read')
      return await open(held).catch((thrown) => {
        held[Symbol.dispose]()
        throw thrown
      })
    })
    return { session: session.view() }
  }

  /** Compares stored bytes with their digests, which needs no key. */
  const startCheck = async (request: move.StartVerifyRequest, bytesPerSecond: number) => {
    const { sessionId, folder } = request
    const isSame = (session: Session) => session instanceof CheckSession
    const session = await sessions.startOnce(
      sessionId,
      isSame,
      async () => new CheckSession(sessionId, folder, bytesPerSecond, repositories.native, log),
    )
    return { session: session.view() }
  }

  return {
    createRepository: async ({ folder, passphraseFile }) => {
      const { info, recoveryKey } = await repositories.create(folder, passphraseFile)
      return { repository: describe(folder, info), recoveryKey }
    },
    inspectRepository: async ({ folder }) => {
      using held = await repositories.holdEvenLocked(folder, 'read')
      const locked = await repositories.isLocked(folder)
      return { repository: { ...describe(folder, held.repository.info()), locked } }
    },
    advanceTime: async ({ folder, confirmClock }) => {
      using held = await repositories.holdEvenLocked(folder, 'write')
      const { now_seconds, behind_by_seconds } = await held.repository.advanceTime(confirmClock)
      return {
        repositoryTime: new Date(now_seconds * 1000),
        aheadDuration: durationFromMs(behind_by_seconds * 1000),
      }
    },
    unlockRepository: async ({ folder, passphraseFile }) => {
      await repositories.unlock(folder, passphraseFile)
      return {}
    },
    listKeySlots: async ({ folder }) => ({
      keySlots: (await repositories.listKeySlots(folder)).map(describeSlot),
    }),
    addKeySlot: async ({ folder, passphraseFile, label }) => {
      const { slot, recoveryKey } = await repositories.addKeySlot(folder, passphraseFile, label)
      return { keySlot: describeSlot(slot), recoveryKey }
    },
    removeKeySlot: async ({ folder, slotId }) => {
      await repositories.removeKeySlot(folder, slotId)
      return {}
    },
    drawIncarnation: async ({ folder }) => {
      using held = await repositories.holdEvenLocked(folder, 'write')
      return { incarnation: BigInt(await held.repository.drawIncarnation()) }
    },
    listManifests: async (request) => {
      using held = await repositories.hold(request.folder, 'read')
      return await listManifests(held.repository, request)
    },
    startBackup: async (request) => {
      const session = await startBackup(request, sessions, repositories, limits, log)
      return { session: session.view() }
    },
    commitBackup: async ({ name, decisions }) => {
      const session = sessions.find(name)
      if (!isBackup(session)) throw argumentInvalid('name', name, 'give a backup session')
      return { backup: await session.commit(decisions) }
    },
    startRestore: (request) => {
      const [kind, open] = request.differential
        ? ([DifferentialSession, openDifferential] as const)
        : ([RestoreSession, openRestore] as const)
      return startReading(
        request,
        (session) => session instanceof kind,
        (held) => open(request, held, config.runFolder, limits, log),
      )
    },
    startVerify: async (request) => {
      const { sessionId, backupId } = request
      const bytesPerSecond = Number(checkRate('bytes_per_second', request.bytesPerSecond))
      const level = checkVerifyLevel(request)
      if (level === move.VerifyLevel.STORED) return await startCheck(request, bytesPerSecond)
      const kind = backupId === '' ? VerifyAllSession : VerifySession
      return await startReading(
        request,
        (session) => session instanceof kind,
        async (held) => {
          const work = { held, bytesPerSecond }
          if (backupId === '') {
            const listed = inOrder(await held.repository.listManifests(null), request)
            return new VerifyAllSession(sessionId, listed, work, limits, log)
          }
          const manifest = await findManifest(held.repository, backupId)
          return new VerifySession(sessionId, manifest, work, limits, log)
        },
      )
    },
    startCollect: async (request) => {
      const { sessionId, folder } = request
      const isSame = (session: Session) => session instanceof CollectSession
      const session = await sessions.startOnce(sessionId, isSame, async () => {
        const options = collectOptions(request)
        const held = await repositories.holdEvenLocked(folder, 'write')
        return new CollectSession(sessionId, folder, options, held, watched, log)
      })
      return { session: session.view() }
    },
    removeBackup: (request) => changeBackup(repositories, request, 'removeBackup'),
    undeleteBackup: (request) => changeBackup(repositories, request, 'undeleteBackup'),
    holdBackup: (request) => changeBackup(repositories, request, 'holdBackup'),
    releaseBackup: (request) => changeBackup(repositories, request, 'releaseBackup'),
    getSession: async ({ name }) => ({ session: sessions.find(name).view() }),
    watchSession: ({ name }, { signal }) => watch(sessions.find(name), config, signal),
    cancelSession: async ({ name }) => {
      const cause = new BackupError('CANCELLED', `${name} was cancelled`, { name })
      await sessions.find(name).stop(cause)
      return {}
    },
  }
}

function checkVerifyLevel({ level, backupId }: move.StartVerifyRequest): move.VerifyLevel {
  const { UNSPECIFIED, STORED, BLOCKS } = move.VerifyLevel
  if (level === UNSPECIFIED) return backupId === '' ? STORED : BLOCKS
  if (level === BLOCKS || (level === STORED && backupId === '')) return level
  const given = move.verifyLevelToJSON(level)
  throw argumentInvalid('level', given, 'give VERIFY_LEVEL_BLOCKS, or of a repository _STORED')
}

/** Those that are named come first, in the order of their names. */
function inOrder(
  listed: ListedManifest[],
  { firstBackupIds }: move.StartVerifyRequest,
): ListedManifest[] {
  const places = new Map(firstBackupIds.map((id, place) => [id, place]))
  const placeOf = (each: ListedManifest): number =>
    (each.kind === 'manifest' ? places.get(each.manifest.backup_id) : undefined) ?? places.size
  return listed.sort((one, other) => placeOf(one) - placeOf(other))
}

function collectOptions(request: move.StartCollectRequest) {
  const { token, undoDuration, dryRun, bytesPerSecond } = request
  if (!token) throw argumentInvalid('token', '', 'give the fencing token of the run')
  return {
    incarnation: Number(token.incarnation),
    number: Number(token.number),
    undo_window_seconds: Math.ceil(msFromDuration(undoDuration) / 1000),
    bytes_per_second: Number(checkRate('bytes_per_second', bytesPerSecond)),
    dry_run: dryRun,
  }
}

async function* watch(
  session: Session,
  config: MoveConfig,
  signal: AbortSignal,
): AsyncGenerator<{ session: move.Session }> {
  let sent = ''
  for (;;) {
    const { ended } = session
    const view = session.view()
    const text = Buffer.from(move.Session.encode(view).finish()).toString('latin1')
    if (text !== sent) yield { session: view }
    sent = text
    if (ended) return
    await session.changed(config.watchIntervalMs, signal)
  }
}

const describe = (folder: string, info: RepositoryInfo): move.RepositoryInfo =>
  move.RepositoryInfo.create({
    folder,
    repositoryId: info.repository_id,
    formatVersion: info.format_version,
    blockSizeBytes: info.block_size_bytes,
    storedBytes: info.stored_bytes,
    packCount: info.pack_count,
    chunkCount: info.chunk_count,
    encrypted: info.encrypted,
  })

const { KeySlot_Kind } = keySlot

const describeSlot = ({ slot_id, kind, label }: KeySlot): keySlot.KeySlot => ({
  slotId: slot_id,
  kind: kind === 'key' ? KeySlot_Kind.KEY : KeySlot_Kind.PASSPHRASE,
  label,
})
