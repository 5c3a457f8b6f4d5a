// Makes the catalog say what the manifests of a repository say.
//
// Entries are removed only when the listing was complete, and only such as were there before it
// began: a backup that is committed and recorded meanwhile may be missing in the listing.
import type { catalog } from '@blockferry/proto'
import { type ManifestSource, readManifests } from './manifests.ts'
import type { Store, StoredRepository } from './store.ts'

export interface Rebuilt {
  backupCount: number
  removedCount: number
  damaged: catalog.DamagedManifest[]
}

/** Errors: REPOSITORY_…, SERVICE_UNREACHABLE; then nothing was changed. */
export async function rebuild(
  repository: StoredRepository,
  store: Store,
  source: ManifestSource,
  signal: AbortSignal,
): Promise<Rebuilt> {
  const { name } = repository
  const before = await store.backupIds(name)
  const listed = await readManifests(repository, '', source, signal)
  const found = new Set(listed.backups.map(({ backup }) => backup))
  // A manifest that cannot be read has not gone: its entry stays, so that the damage is seen.
  const gone = listed.damaged.length > 0 ? [] : [...before].filter((id) => !found.has(id))
  const removedCount = await store.replaceBackups(name, listed.backups, gone)
  const kept = [...before].filter((id) => !found.has(id)).length - gone.length
  return { backupCount: found.size + kept, removedCount, damaged: listed.damaged }
}
