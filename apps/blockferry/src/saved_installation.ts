// What a repository says of the installations that saved themselves into it.
import { argumentInvalid, asBackupError, BackupError } from '@blockferry/errors'
import { type backup, installationVm, schedule } from '@blockferry/proto'
import { limits } from './config.ts'
import type { Context } from './context.ts'
import { lastPart } from './resource_name.ts'
import { listed } from './services.ts'
import { timeText } from './time_text.ts'

export interface SavedInstallation {
  save: backup.Backup
  installation: schedule.Installation
}

/**
 * The newest save in the repository, or the one that is asked for. The repositories of several installations are
 * never mixed: which one is meant has to be said. Errors: NOT_FOUND, ARGUMENT_INVALID, MANIFEST_CORRUPT.
 */
export async function findSaved(
  context: Context,
  folder: string,
  id: string | undefined,
): Promise<SavedInstallation> {
  const saves = await readSaves(context, folder)
  if (id !== undefined) {
    const save = saves.find(({ name }) => lastPart(name) === id)
    if (save) return { save, installation: installationOf(save) }
    const known = saves.map(({ name }) => lastPart(name)).join(', ') || 'none'
    const message = `find save ${id} of an installation in ${folder}: it holds ${known}`
    throw new BackupError('NOT_FOUND', message, { folder })
  }
  const newest = newestOfEach(saves)
  const [save] = newest
  if (!save) {
    throw new BackupError(
      'NOT_FOUND',
      `find a save of an installation in ${folder}: it holds none; adopt the repository with \`blockferry repository adopt\` and tell hosts and policies anew`,
      { folder },
    )
  }
  if (newest.length > 1) {
    const hint = `${folder} holds saves of ${newest.length} installations: choose ${newest.map(textOf).join(' or ')}`
    throw argumentInvalid('backup', '', hint)
  }
  return { save, installation: installationOf(save) }
}

/** Newest first, without those that are removed. */
async function readSaves(
  { services, terminal }: Context,
  folder: string,
): Promise<backup.Backup[]> {
  const { items } = await listed(Infinity, limits.pageSize, async (pageSize, pageToken) => {
    const request = { folder, vmIdentity: '', pageSize, pageToken }
    const answer = await services.move.listManifests(request)
    for (const { path, message } of answer.damagedManifests) {
      terminal.err(`Passed over: ${path} is damaged: ${message}\n`)
    }
    return { items: answer.backups, nextPageToken: answer.nextPageToken }
  })
  const timeOf = ({ pointTime }: backup.Backup): number => pointTime?.getTime() ?? 0
  return items
    .filter(({ vmIdentity }) => vmIdentity.startsWith(`${installationVm}/`))
    .filter(({ removeTime }) => removeTime === undefined)
    .sort((one, other) => timeOf(other) - timeOf(one))
}

function newestOfEach(saves: backup.Backup[]): backup.Backup[] {
  const seen = new Set<string>()
  return saves.filter(({ vmIdentity }) => seen.size < seen.add(vmIdentity).size)
}

/** `20261127-104210-3f0a12 of web-host, 2026-11-27 10:42:10` */
function textOf(save: backup.Backup): string {
  let machine = 'a machine that cannot be read'
  try {
    machine = installationOf(save).machine || 'an unnamed machine'
  } catch (thrown) {
    if (!asBackupError(thrown)) throw thrown
  }
  return `${lastPart(save.name)} of ${machine}, ${timeText(save.pointTime)}`
}

function installationOf({ name, vmConfigJson }: backup.Backup): schedule.Installation {
  try {
    return schedule.Installation.fromJSON(JSON.parse(vmConfigJson))
  } catch (cause) {
    const message = `read save ${lastPart(name)}: it is no installation; choose another with --backup`
    throw new BackupError('MANIFEST_CORRUPT', message, { backup: lastPart(name) }, { cause })
  }
}
