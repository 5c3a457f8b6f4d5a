import { BackupError } from '@blockferry/errors'
import type { Manifest, Repository } from '@blockferry/native'

/** Errors: BACKUP_NOT_FOUND; MANIFEST_CORRUPT when only a damaged manifest could be it. */
export async function findManifest(repository: Repository, backupId: string): Promise<Manifest> {
  const listed = await repository.listManifests(null)
  let damaged = 0
  for (const entry of listed) {
    if (entry.kind === 'damaged') damaged++
    else if (entry.manifest.backup_id === backupId) return entry.manifest
  }
  const hint =
    damaged === 0 ? '' : `; ${damaged} manifests of it cannot be read, it may be one of them`
  throw new BackupError(
    'BACKUP_NOT_FOUND',
    `find backup ${backupId}: the repository has none of that id${hint}; list its backups`,
    { backup: backupId, damaged_manifests: String(damaged) },
  )
}
