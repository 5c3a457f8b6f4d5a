// Short names on the command line, full ones on the wire.
import { BackupError } from '@blockferry/errors'
import type { backup } from '@blockferry/proto'
import { limits } from './config.ts'
import { listed, type Services } from './services.ts'

export type Collection = 'hosts' | 'repositories' | 'policies' | 'runs'

/** `nightly` → `repositories/nightly`; a full name stays as it is. */
export const fullName = (collection: Collection, text: string): string =>
  text.startsWith(`${collection}/`) ? text : `${collection}/${text}`

/** `repositories/nightly/backups/20261123-…` → `20261123-…`. */
export const lastPart = (name: string): string => name.slice(name.lastIndexOf('/') + 1)

/** `repositories/nightly/backups/…` → `nightly`. */
export const repositoryOf = (backupName: string): string => backupName.split('/')[1] ?? ''

/**
 * The backup that a user means: a full name, `repository/id`, an id, `latest:VM`, or a VM together
 * with the id of one of its backups. Errors: BACKUP_NOT_FOUND.
 */
export async function findBackup(
  services: Services,
  text: string,
  id?: string,
): Promise<backup.Backup> {
  if (id !== undefined) return await backupOfVm(services, text, id)
  if (text.startsWith('latest:')) return await latestOf(services, text.slice('latest:'.length))
  const full = fullBackupName(text)
  if (full !== null) return await readBackup(services, full)
  const found = await firstBackup(services, '', (each) => lastPart(each.name) === text)
  if (found) return found
  throw notFound(
    text,
    `find backup ${text}: no repository in the catalog has one of that id; the newest backup of a VM is called latest:VM`,
  )
}

function fullBackupName(text: string): string | null {
  const parts = text.split('/')
  if (parts.length === 4 && parts[0] === 'repositories' && parts[2] === 'backups') return text
  return parts.length === 2 ? `repositories/${parts[0]}/backups/${parts[1]}` : null
}

async function readBackup(services: Services, name: string): Promise<backup.Backup> {
  const { backup: found } = await services.catalog.getBackup({ name })
  if (!found) throw notFound(name, `read backup ${name}: the catalog gave an empty answer`)
  return found
}

async function latestOf(services: Services, vm: string): Promise<backup.Backup> {
  const found = await firstBackup(services, vm, () => true)
  if (found) return found
  throw notFound(vm, `find the newest backup of VM ${vm}: it has none`)
}

async function backupOfVm(services: Services, vm: string, id: string): Promise<backup.Backup> {
  const found = await firstBackup(services, vm, ({ name }) => name === id || lastPart(name) === id)
  if (found) return found
  throw notFound(id, `find backup ${id} of VM ${vm}: it has none of that id`)
}

async function firstBackup(
  services: Services,
  vm: string,
  wanted: (each: backup.Backup) => boolean,
): Promise<backup.Backup | undefined> {
  let pageToken = ''
  do {
    const page = { pageSize: limits.pageSize, pageToken }
    const request = { parent: '', vm, ...page, showRemoved: false }
    const { backups, nextPageToken } = await services.catalog.listBackups(request)
    const found = backups.find(wanted)
    if (found) return found
    pageToken = nextPageToken
  } while (pageToken !== '')
  return undefined
}

const notFound = (name: string, message: string): BackupError =>
  new BackupError('BACKUP_NOT_FOUND', message, { name })

/** Backups, newest first, of one VM and repository or of all. */
export const listBackups = (
  services: Services,
  filter: { vm: string; repository: string; showRemoved: boolean },
  count: number,
) =>
  listed(count, limits.pageSize, async (pageSize, pageToken) => {
    const parent = filter.repository === '' ? '' : fullName('repositories', filter.repository)
    const answer = await services.catalog.listBackups({
      parent,
      vm: filter.vm,
      showRemoved: filter.showRemoved,
      pageSize,
      pageToken,
    })
    return { items: answer.backups, nextPageToken: answer.nextPageToken }
  })
