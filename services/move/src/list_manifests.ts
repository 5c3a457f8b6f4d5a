// Pages of manifests. A page's token is the place of its last manifest, not a count, so that
// manifests which come or go between two pages make no other one be skipped or repeated.
import { argumentInvalid, asBackupError } from '@blockferry/errors'
import type { ListedManifest, Repository } from '@blockferry/native'
import { backup as catalog, type move } from '@blockferry/proto'
import { backupFromListed } from '@blockferry/repository'

type Readable = ListedManifest & { kind: 'manifest' }

const pageSizeDefault = 100
const pageSizeMax = 1000
/** A message takes 8 MiB; a manifest that alone is larger than this cannot travel. */
const pageBytesMax = 4 * 1024 * 1024

export async function listManifests(
  repository: Repository,
  request: move.ListManifestsRequest,
): Promise<move.ListManifestsResponse> {
  const { vmIdentity, pageToken, pageSize } = request
  if (pageSize < 0) throw argumentInvalid('page_size', String(pageSize), 'give 0 or more')
  const after = placeOfToken(pageToken)
  const countMax = Math.min(pageSize || pageSizeDefault, pageSizeMax)
  const listed = await repository.listManifests(
    vmIdentity === '' ? null : repository.vmPseudonym(vmIdentity),
  )
  const damaged: move.DamagedManifest[] = []
  const page: catalog.Backup[] = []
  let pageBytes = 0
  let nextPageToken = ''
  let last = ''
  for (const entry of inOrder(listed, damaged)) {
    const place = placeOf(entry)
    if (place <= after) {
      // Its damage was told on the first page.
      continue
    }
    if (nextPageToken !== '') {
      // The first page tells of every damaged manifest, also of those on later pages.
      if (after === '') readBackup(entry, damaged)
      continue
    }
    const found = readBackup(entry, damaged)
    if (!found) continue
    if (page.length === countMax || (page.length > 0 && pageBytes + found.size > pageBytesMax)) {
      nextPageToken = last
      continue
    }
    page.push(found.backup)
    pageBytes += found.size
    last = place
  }
  return { backups: page, damagedManifests: after === '' ? damaged : [], nextPageToken }
}

/** Manifests by VM and sequence; the damaged ones go into their list. */
function inOrder(listed: ListedManifest[], damaged: move.DamagedManifest[]): Readable[] {
  const manifests: Readable[] = []
  for (const entry of listed) {
    if (entry.kind === 'manifest') manifests.push(entry)
    else damaged.push({ path: entry.path, reason: entry.reason, message: entry.message })
  }
  return manifests.sort((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1))
}

const placeOf = ({ manifest: { vm_pseudonym, sequence, backup_id } }: Readable): string =>
  `${vm_pseudonym}.${String(sequence).padStart(16, '0')}.${backup_id}`

function placeOfToken(token: string): string {
  if (token === '' || /^[0-9a-f]{32}\.\d{16}\.[^/]*$/.test(token)) return token
  throw argumentInvalid('page_token', token, 'give the next_page_token of the page before')
}

function readBackup(
  listed: Readable,
  damaged: move.DamagedManifest[],
): { backup: catalog.Backup; size: number } | null {
  const damage = (reason: string, message: string): null => {
    damaged.push({ path: `backups/${listed.manifest.backup_id}`, reason, message })
    return null
  }
  try {
    const backup = backupFromListed(listed)
    const size = catalog.Backup.encode(backup).finish().length
    if (size <= pageBytesMax) return { backup, size }
    return damage('MANIFEST_CORRUPT', `it takes ${size} bytes, more than a message holds`)
  } catch (thrown) {
    const failure = asBackupError(thrown)
    if (!failure) throw thrown
    return damage(failure.reason, failure.message)
  }
}
