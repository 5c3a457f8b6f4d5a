import { argumentInvalid, BackupError } from '@blockferry/errors'

/** Letters, digits, `-`, `_` and `.`; a dot at the start would hide or climb. */
const namePart = '[A-Za-z0-9_-][A-Za-z0-9_.-]{0,62}'
const repositoryPattern = new RegExp(`^repositories/(${namePart})$`)
/** As schedule lets policies be called. */
const policyPattern = /^policies\/[A-Za-z0-9_.-]{1,63}$/
const backupPattern = new RegExp(`^repositories/(${namePart})/backups/(${namePart})$`)

/** Errors: ARGUMENT_INVALID. */
export function checkRepositoryId(id: string): void {
  if (new RegExp(`^${namePart}$`).test(id)) return
  const advice = 'give letters, digits, -, _ and ., at most 63, not starting with a dot'
  throw argumentInvalid('repository_id', id, advice)
}

/** `repositories/nightly` → `nightly`. Errors: ARGUMENT_INVALID. */
export function repositoryOf(field: string, name: string): string {
  const repository = repositoryPattern.exec(name)?.[1]
  if (repository !== undefined) return repository
  throw argumentInvalid(field, name, 'give repositories/{repository}')
}

/** Errors: ARGUMENT_INVALID. */
export function checkPolicyName(field: string, name: string): string {
  if (policyPattern.test(name)) return name
  throw argumentInvalid(field, name, 'give policies/{policy}')
}

export interface BackupName {
  repository: string
  backup: string
}

/** Errors: ARGUMENT_INVALID. */
export function backupNameOf(field: string, name: string): BackupName {
  const [, repository, backup] = backupPattern.exec(name) ?? []
  if (repository !== undefined && backup !== undefined) return { repository, backup }
  throw argumentInvalid(field, name, 'give repositories/{repository}/backups/{backup}')
}

/** `backups/{backup}`, as a manifest names itself; null when it cannot be a name. */
export function backupOfManifest(name: string): string | null {
  return new RegExp(`^backups/(${namePart})$`).exec(name)?.[1] ?? null
}

export const repositoryNotFound = (repository: string): BackupError =>
  new BackupError(
    'NOT_FOUND',
    `find repositories/${repository}: there is none of that name; list the repositories, or create or adopt it`,
    { name: `repositories/${repository}` },
  )
