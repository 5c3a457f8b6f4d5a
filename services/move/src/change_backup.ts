import { BackupError } from '@blockferry/errors'
import type { Repository } from '@blockferry/native'
import type { backup as catalog } from '@blockferry/proto'
import { backupFromListed } from '@blockferry/repository'
import type { Repositories } from './repositories.ts'

type Change = 'removeBackup' | 'undeleteBackup' | 'holdBackup' | 'releaseBackup'

interface Named {
  folder: string
  vmIdentity: string
  backupId: string
}

/** Sets or removes a mark of a backup and answers with the backup as it is then. */
export async function changeBackup(
  repositories: Repositories,
  { folder, vmIdentity, backupId }: Named,
  change: Change,
): Promise<{ backup: catalog.Backup }> {
  using held = await repositories.hold(folder, 'write')
  const { repository } = held
  const vm = repository.vmPseudonym(vmIdentity)
  await repository[change](vm, backupId)
  return { backup: await backupOf(repository, vm, backupId) }
}

async function backupOf(
  repository: Repository,
  vm: string,
  backupId: string,
): Promise<catalog.Backup> {
  for (const listed of await repository.listManifests(vm)) {
    if (listed.kind !== 'manifest' || listed.manifest.backup_id !== backupId) continue
    return backupFromListed(listed)
  }
  throw new BackupError(
    'BACKUP_NOT_FOUND',
    `find backup ${backupId}: it went in this moment; list the backups`,
    { name: backupId },
  )
}
