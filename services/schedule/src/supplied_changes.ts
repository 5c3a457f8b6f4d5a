import { argumentInvalid, BackupError } from '@blockferry/errors'
import type { move, backup as proto } from '@blockferry/proto'
import { backupIdOf } from './history.ts'

/** The lists with the disk each is about: one without a name stands for the only disk. */
export function nameDisks(
  supplied: move.SuppliedChanges[],
  disks: string[],
): move.SuppliedChanges[] {
  const known = disks.join(', ')
  return supplied.map((changes) => {
    const { disk } = changes
    const [only, ...others] = disks
    if (disk === '' && only !== undefined && others.length === 0) return { ...changes, disk: only }
    if (disk === '') throw argumentInvalid('supplied_changes.disk', '', `name one of ${known}`)
    if (disks.includes(disk)) return changes
    throw new BackupError(
      'DISK_NOT_FOUND',
      `use supplied changes of disk ${disk}: the VM has only ${known}; name one of these`,
      { disk, disks: known },
    )
  })
}

/** Refuses a list of changed blocks that counts from a backup which is not there. */
export function checkSuppliedBase(backups: proto.Backup[], baseBackup: string): void {
  if (baseBackup === '') {
    throw argumentInvalid('base_backup', '', 'name the backup that the supplied changes count from')
  }
  if (backups.some((backup) => backupIdOf(backup) === baseBackup)) return
  throw new BackupError(
    'BASE_MISSING',
    `use supplied changes since backup ${baseBackup}: the repository has no such backup of this VM; list its backups and name one of them`,
    { base: baseBackup },
  )
}
