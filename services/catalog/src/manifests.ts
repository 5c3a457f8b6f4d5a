// What the manifests of a repository say: the truth about which backups there are.
import { BackupError } from '@blockferry/errors'
import type { catalog, move } from '@blockferry/proto'
import type { RpcClient } from '@blockferry/rpc'
import type { CatalogConfig } from './config.ts'
import { backupOfManifest } from './names.ts'
import type { CatalogedBackup, StoredRepository } from './store.ts'

export interface ManifestSource {
  mover: RpcClient<move.MoveServiceServer>
  config: Pick<CatalogConfig, 'listDeadlineMs' | 'listPageSize'>
}

export interface Manifests {
  backups: CatalogedBackup[]
  damaged: catalog.DamagedManifest[]
}

/**
 * Those of one VM, or of all for an empty identity.
 * Errors: REPOSITORY_…, KEY_MISSING, SERVICE_UNREACHABLE.
 */
export async function readManifests(
  { name, folder, repositoryId }: StoredRepository,
  vmIdentity: string,
  { mover, config }: ManifestSource,
  signal: AbortSignal,
): Promise<Manifests> {
  await checkSame(repositoryId, folder, mover, signal)
  const listed: Manifests = { backups: [], damaged: [] }
  let pageToken = ''
  do {
    const page = await mover.listManifests(
      { folder, vmIdentity, pageSize: config.listPageSize, pageToken },
      { signal, deadlineMs: config.listDeadlineMs },
    )
    listed.damaged.push(...page.damagedManifests)
    for (const message of page.backups) {
      const backup = backupOfManifest(message.name)
      if (backup !== null) listed.backups.push({ repository: name, backup, message })
      else listed.damaged.push(misnamed(message.name))
    }
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  return listed
}

/** Another repository at the same place must not empty the catalog of this one. */
async function checkSame(
  repositoryId: string,
  folder: string,
  mover: RpcClient<move.MoveServiceServer>,
  signal: AbortSignal,
): Promise<void> {
  const { repository } = await mover.inspectRepository({ folder }, { signal })
  if (repository?.repositoryId === repositoryId) return
  const found = repository?.repositoryId ?? ''
  throw new BackupError(
    'REPOSITORY_MISSING',
    `read the manifests in ${folder}: the repository there has the id ${found}, the catalog expects ${repositoryId}; mount the right one, or delete the entry and adopt this one`,
    { folder, found, expected: repositoryId },
  )
}

const misnamed = (name: string): catalog.DamagedManifest => ({
  path: name,
  reason: 'MANIFEST_CORRUPT',
  message: `read manifest ${JSON.stringify(name)}: that is no name of a backup; it is left out`,
})
