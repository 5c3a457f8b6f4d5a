// Saves what this installation was told into a repository: hosts, policies and repositories, as a
// backup without disks of a VM that is the installation itself. So it is encrypted, listed, kept and
// collected as every other backup, and can be read back from the repository alone.
import { hostname } from 'node:os'
import { newPointId, wallMs } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { installationVm, backup as proto, schedule, snapshot } from '@blockferry/proto'
import { programVersion } from './config.ts'
import type { HeldRun } from './held_run.ts'
import { backupIdOf, type History, nextSequence, ownBackup, readHistory } from './history.ts'
import { cancelSession, followSession } from './move_disks.ts'
import { patiently } from './patience.ts'
import { publicPolicy } from './policy_store.ts'
import { commitOnce, drawnIncarnation, endCommit, type Means, recordBackup } from './run.ts'
import { State, sessionIdOf } from './run_row.ts'
import type { Services } from './services.ts'

const savesKept = 14
const sizeMax = 3 * 1024 * 1024
const pageSize = 500

export async function runSave(run: HeldRun, means: Means, signal: AbortSignal): Promise<void> {
  const { services } = means
  if (run.row.state === State.COMMITTING) await endCommit(services.move, run, signal)
  if (run.row.pointIds.length === 0) await run.enterWithPoint(State.MOVING, newPointId())
  const incarnation = await drawnIncarnation(run, means, signal)
  const vmIdentity = `${installationVm}/${incarnation}`
  const history = await readHistory(services.move, run, signal, vmIdentity)
  const backup =
    ownBackup(history, run.id) ??
    (await save(run, means, { vmIdentity, incarnation, history }, signal))
  await run.enter(State.RECORDING)
  await recordBackup(services.catalog, run, backup, signal)
  await removeOlder(run, services.catalog, history, signal)
}

interface Saving {
  vmIdentity: string
  incarnation: bigint
  history: History
}

async function save(
  run: HeldRun,
  means: Means,
  { vmIdentity, incarnation, history }: Saving,
  signal: AbortSignal,
): Promise<proto.Backup> {
  const { move } = means.services
  const installation = await readInstallation(run, means, signal)
  const vmConfigJson = JSON.stringify(schedule.Installation.toJSON(installation))
  checkSize(vmConfigJson)
  const point = snapshot.Point.fromPartial({
    pointId: savedPoint(run),
    vm: { identity: vmIdentity },
  })
  const backup = proto.Backup.fromPartial({
    name: run.row.detail.backup,
    vmIdentity,
    vmDisplayName: 'installation',
    driver: 'installation',
    vmConfigJson,
    pointTime: new Date(wallMs()),
    pointId: point.pointId,
    level: proto.Level.FULL,
    sequence: nextSequence(history),
    ...(run.row.startTime ? { startTime: run.row.startTime } : {}),
    version: programVersion,
    run: `runs/${run.id}`,
  })
  const request = {
    sessionId: sessionIdOf(run.id, point.pointId),
    folder: run.plan.repositoryFolder,
    token: { incarnation, number: run.row.tokenNumber },
    ...{ point, backup, suppliedChanges: [], compression: undefined },
    lockDuration: undefined,
  }
  const { name } = await followSession(
    move,
    run,
    () => move.startBackup(request, { signal }),
    signal,
  )
  await run.enterForGood(State.COMMITTING)
  try {
    return await commitOnce(move, run, name)
  } catch (thrown) {
    run.left.throwIfAborted()
    // An answer that was lost leaves it to the repository to say.
    const committed = ownBackup(await readHistory(move, run, run.left, vmIdentity), run.id)
    if (committed) return committed
    throw thrown
  }
}

/** A manifest that is larger than a page of its listing could never be read back. */
function checkSize(json: string): void {
  const size = Buffer.byteLength(json)
  if (size <= sizeMax) return
  throw new BackupError(
    'ARGUMENT_INVALID',
    `save the installation: its hosts, policies and repositories take ${size} bytes, a save holds ${sizeMax}; name the VMs in fewer policies`,
    { field: 'policies', value: String(size) },
  )
}

/** All of it; what comes in pages is read page by page, and may change meanwhile. */
async function readInstallation(
  run: HeldRun,
  { services, policies }: Means,
  signal: AbortSignal,
): Promise<schedule.Installation> {
  const { recordMs, retryPauseMs } = run.limits
  const patience = { silentMs: recordMs, pauseMs: retryPauseMs, signal }
  const installation = schedule.Installation.fromPartial({ machine: hostname() })
  for (let token = '', more = true; more; more = token !== '') {
    const request = { pageSize, pageToken: token }
    const page = await patiently(() => services.snapshot.listHosts(request, { signal }), patience)
    installation.hosts.push(...page.hosts)
    token = page.nextPageToken
  }
  for (let token = '', more = true; more; more = token !== '') {
    const request = { pageSize, pageToken: token }
    const page = await patiently(
      () => services.catalog.listRepositories(request, { signal }),
      patience,
    )
    installation.repositories.push(...page.repositories)
    token = page.nextPageToken
  }
  installation.policies.push(...(await policies.all()).map(publicPolicy))
  return installation
}

/** Each save is whole, so the last few are enough. */
async function removeOlder(
  run: HeldRun,
  catalog: Services['catalog'],
  { backups }: History,
  signal: AbortSignal,
): Promise<void> {
  const before = backups.filter(
    (backup) => backup.removeTime === undefined && !backup.held && backupIdOf(backup) !== run.id,
  )
  for (const backup of before.slice(0, Math.max(0, before.length - (savesKept - 1)))) {
    const name = `${run.row.repository}/backups/${backupIdOf(backup)}`
    await catalog.removeBackup({ name }, { signal }).catch((thrown: unknown) => {
      // The next save tries it again; nothing depends on it.
      run.log.warn({ err: thrown, backup: name }, 'an older save was not removed')
    })
  }
}

const savedPoint = (run: HeldRun): string => run.row.pointIds.at(-1) ?? ''

/** Removes what the save has made so far. REQUIRES: it is not committed. */
export const undoSave = (run: HeldRun, services: Services): Promise<void> =>
  cancelSession(services.move, run, sessionIdOf(run.id, savedPoint(run)))
