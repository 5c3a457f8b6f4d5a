// Makes the catalog say what the manifests of a repository say.
//
// Entries are removed only when the listing was complete, and only such as were there before it
// began: a backup that is committed and recorded meanwhile may be missing in the listing.
import { BackupError } from '@blockferry/errors'
import type { catalog, move } from '@blockferry/proto'
import type { RpcClient } from '@blockferry/rpc'
import { backupOfManifest } from './names.ts'
import type { CatalogedBackup, Store, StoredRepository } from './store.ts'

export interface ListLimits {
  listDeadlineMs: number
  listPageSize: number
}

export interface Rebuilt {
  backupCount: number
  removedCount: number
  damaged: catalog.DamagedManifest[]
}

/** Errors: REPOSITORY_…, SERVICE_UNREACHABLE; then nothing was changed. */
export async function rebuild(
  { name, folder, repositoryId }: StoredRepository,
  store: Store,
  mover: RpcClient<move.MoveServiceServer>,
  limits: ListLimits,
  signal: AbortSignal,
): Promise<Rebuilt> {
  await checkSame(repositoryId, folder, mover, signal)
  const before = await store.backupIds(name)
  const listed = await listAll(name, folder, mover, limits, signal)
  const found = new Set(listed.backups.map(({ backup }) => backup))
  // A manifest that cannot be read has not gone: its entry stays, so that the damage is seen.
  const gone = listed.damaged.length > 0 ? [] : [...before].filter((id) => !found.has(id))
  const removedCount = await store.replaceBackups(name, listed.backups, gone)
  const kept = [...before].filter((id) => !found.has(id)).length - gone.length
  return { backupCount: found.size + kept, removedCount, damaged: listed.damaged }
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

interface Listed {
  backups: CatalogedBackup[]
  damaged: catalog.DamagedManifest[]
}

async function listAll(
  repository: string,
  folder: string,
  mover: RpcClient<move.MoveServiceServer>,
  limits: ListLimits,
  signal: AbortSignal,
): Promise<Listed> {
  const listed: Listed = { backups: [], damaged: [] }
  let pageToken = ''
  do {
    const page = await mover.listManifests(
      { folder, vmIdentity: '', pageSize: limits.listPageSize, pageToken },
      { signal, deadlineMs: limits.listDeadlineMs },
    )
    listed.damaged.push(...page.damagedManifests)
    for (const message of page.backups) {
      const backup = backupOfManifest(message.name)
      if (backup !== null) listed.backups.push({ repository, backup, message })
      else listed.damaged.push(misnamed(message.name))
    }
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  return listed
}

const misnamed = (name: string): catalog.DamagedManifest => ({
  path: name,
  reason: 'MANIFEST_CORRUPT',
  message: `read manifest ${JSON.stringify(name)}: that is no name of a backup; it is left out`,
})
