// All SQL of the catalog. Texts in columns are for search only and have no zero characters, which
// PostgreSQL does not store; the message has everything as it is.
import { BackupError } from '@blockferry/errors'
import { isUniqueViolation, type Pool, type Session, transaction } from '@blockferry/postgres'
import { type catalog, durationFromMs, msFromDuration, backup as proto } from '@blockferry/proto'
import type { Page } from '@blockferry/rpc'
import type { BackupName } from './names.ts'

type Backup = proto.Backup

export interface StoredRepository {
  name: string
  folder: string
  repositoryId: string
  requestId: string
  createTime: Date
  backupCount: bigint
  maintenance: catalog.Maintenance
}

/** A backup under its name in one repository of this catalog. */
export interface CatalogedBackup extends BackupName {
  message: Backup
}

export interface StoredVm {
  identity: string
  displayName: string
  backupCount: bigint
  latest: CatalogedBackup
  storedBytes: bigint
}

interface RepositoryRow {
  name: string
  folder: string
  repository_id: string
  request_id: string
  create_time: Date
  backup_count: bigint
  collect_repeat_ms: bigint | null
  undo_ms: bigint
  verify_repeat_ms: bigint | null
  save_repeat_ms: bigint | null
  verify_bytes_per_second: bigint
  collect_bytes_per_second: bigint
}

interface BackupRow {
  repository: string
  backup: string
  message: Buffer
  verify_time: Date | null
  damaged: boolean
}

const backupColumns = 'repository, backup, message, verify_time, damaged'

const selectRepositories = `
  SELECT name, folder, repository_id, request_id, create_time,
    collect_repeat_ms, undo_ms, verify_repeat_ms, save_repeat_ms, verify_bytes_per_second, collect_bytes_per_second,
    (SELECT count(*) FROM catalog.backups b
     WHERE b.repository = r.name AND NOT b.removed) AS backup_count
  FROM catalog.repositories r`

export class Store {
  readonly #pool: Pool

  constructor(pool: Pool) {
    this.#pool = pool
  }

  /** Errors: ALREADY_EXISTS. */
  async insertRepository(repository: StoredRepository): Promise<void> {
    const { name, folder, repositoryId, requestId, createTime, maintenance } = repository
    try {
      await this.#pool.query(
        `INSERT INTO catalog.repositories (name, folder, repository_id, request_id, create_time,
           collect_repeat_ms, undo_ms, verify_repeat_ms, save_repeat_ms, verify_bytes_per_second, collect_bytes_per_second)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
        [name, folder, repositoryId, requestId, createTime, ...valuesOf(maintenance)],
      )
    } catch (thrown) {
      if (!isUniqueViolation(thrown)) throw thrown
      const known = await this.findRepositoryById(repositoryId)
      throw alreadyExists(name, known?.name ?? name)
    }
  }

  /** False: there is none. */
  async updateRepository(name: string, maintenance: catalog.Maintenance): Promise<boolean> {
    const { count } = await this.#pool.query(
      `UPDATE catalog.repositories
       SET collect_repeat_ms = $2, undo_ms = $3, verify_repeat_ms = $4, save_repeat_ms = $5,
         verify_bytes_per_second = $6, collect_bytes_per_second = $7
       WHERE name = $1`,
      [name, ...valuesOf(maintenance)],
    )
    return count > 0
  }

  async findRepository(name: string): Promise<StoredRepository | null> {
    const { rows } = await this.#pool.query<RepositoryRow>(
      `${selectRepositories} WHERE name = $1`,
      [name],
    )
    return rows[0] ? repositoryOfRow(rows[0]) : null
  }

  async findRepositoryById(repositoryId: string): Promise<StoredRepository | null> {
    const { rows } = await this.#pool.query<RepositoryRow>(
      `${selectRepositories} WHERE repository_id = $1`,
      [repositoryId],
    )
    return rows[0] ? repositoryOfRow(rows[0]) : null
  }

  /** One more than the page holds tells that there is a next one. */
  async listRepositories(page: Page): Promise<StoredRepository[]> {
    const { rows } = await this.#pool.query<RepositoryRow>(
      `${selectRepositories} ORDER BY name COLLATE "C" LIMIT $1 OFFSET $2`,
      [page.size + 1, page.offset],
    )
    return rows.map(repositoryOfRow)
  }

  async deleteRepository(name: string): Promise<boolean> {
    const { count } = await this.#pool.query('DELETE FROM catalog.repositories WHERE name = $1', [
      name,
    ])
    return count > 0
  }

  async putBackup(cataloged: CatalogedBackup): Promise<void> {
    await transaction(this.#pool, (session) => putBackup(session, cataloged), {
      isolation: 'read committed',
    })
  }

  async findBackup({ repository, backup }: BackupName): Promise<Backup | null> {
    const { rows } = await this.#pool.query<BackupRow>(
      `SELECT ${backupColumns} FROM catalog.backups
       WHERE repository = $1 AND backup = $2`,
      [repository, backup],
    )
    return rows[0] ? backupOfRow(rows[0]) : null
  }

  /** Newest first; empty filters let everything through. One more than the page holds. */
  async listBackups(
    repository: string,
    vm: string,
    page: Page,
    showRemoved: boolean,
  ): Promise<Backup[]> {
    const { rows } = await this.#pool.query<BackupRow>(
      `SELECT ${backupColumns} FROM catalog.backups
       WHERE ($1 = '' OR repository = $1) AND ($2 = '' OR vm_identity = $2 OR vm_display_name = $2)
         AND ($5 OR NOT removed)
       ORDER BY point_time_ms DESC, sequence DESC, repository COLLATE "C", backup COLLATE "C"
       LIMIT $3 OFFSET $4`,
      [repository, searchable(vm), page.size + 1, page.offset, showRemoved],
    )
    return rows.map(backupOfRow)
  }

  /**
   * Backups in a repository of the VM that has this identity, and of those whose newest backup there
   * carries this name.
   */
  async backupsOfVm(repository: string, vm: string): Promise<CatalogedBackup[]> {
    const { rows } = await this.#pool.query<BackupRow>(
      `SELECT ${backupColumns} FROM catalog.backups
       WHERE repository = $1 AND (vm_identity = $2 OR vm_identity IN (
         SELECT named.vm_identity FROM catalog.backups named
         WHERE named.repository = $1 AND named.vm_display_name = $2 AND NOT EXISTS (
           SELECT FROM catalog.backups newer
           WHERE newer.repository = $1 AND newer.vm_identity = named.vm_identity
             AND newer.sequence > named.sequence)))`,
      [repository, searchable(vm)],
    )
    return rows.map((row) => ({ ...row, message: backupOfRow(row) }))
  }

  /** By the database's clock, which all processes of this service share. */
  async nowMs(): Promise<number> {
    const { rows } = await this.#pool.query<{ now: Date }>('SELECT now() AS now')
    return rows[0]?.now.getTime() ?? 0
  }

  /** VMs by name. One more than the page holds. */
  async listVms(page: Page): Promise<StoredVm[]> {
    const { rows } = await this.#pool.query<
      BackupRow & { backup_count: bigint; stored_bytes: bigint }
    >(
      `SELECT ${backupColumns}, backup_count, stored_bytes
       FROM (
         SELECT ${backupColumns}, vm_display_name, vm_identity,
           count(*) OVER vm AS backup_count,
           (sum(stored_bytes) OVER vm)::bigint AS stored_bytes,
           row_number() OVER (
             PARTITION BY vm_identity
             ORDER BY point_time_ms DESC, sequence DESC, repository, backup
           ) AS place
         FROM catalog.backups
         WHERE NOT removed
         WINDOW vm AS (PARTITION BY vm_identity)
       ) newest
       WHERE place = 1
       ORDER BY vm_display_name COLLATE "C", vm_identity COLLATE "C"
       LIMIT $1 OFFSET $2`,
      [page.size + 1, page.offset],
    )
    return rows.map((row) => {
      const message = backupOfRow(row)
      return {
        identity: message.vmIdentity,
        displayName: message.vmDisplayName,
        backupCount: row.backup_count,
        latest: { repository: row.repository, backup: row.backup, message },
        storedBytes: row.stored_bytes,
      }
    })
  }

  async recordVerification(repository: string, backups: string[], damaged: boolean): Promise<void> {
    await this.#pool.query(
      `UPDATE catalog.backups SET verify_time = now(), damaged = $3
       WHERE repository = $1 AND backup = ANY ($2)`,
      [repository, backups, damaged],
    )
  }

  async backupIds(repository: string): Promise<Set<string>> {
    const { rows } = await this.#pool.query<{ backup: string }>(
      'SELECT backup FROM catalog.backups WHERE repository = $1',
      [repository],
    )
    return new Set(rows.map(({ backup }) => backup))
  }

  /** Enters all of `backups` and removes `gone`, in one transaction. Answers how many went. */
  async replaceBackups(
    repository: string,
    backups: CatalogedBackup[],
    gone: string[],
  ): Promise<number> {
    return await transaction(
      this.#pool,
      async (session) => {
        for (const cataloged of backups) await putBackup(session, cataloged)
        const { count } = await session.query(
          'DELETE FROM catalog.backups WHERE repository = $1 AND backup = ANY ($2)',
          [repository, gone],
        )
        return count
      },
      { isolation: 'read committed' },
    )
  }
}

async function putBackup(session: Session, cataloged: CatalogedBackup): Promise<void> {
  const { repository, backup, message } = cataloged
  const { vmIdentity, vmDisplayName, sequence, pointTime, disks } = message
  const sum = (each: (disk: proto.BackupDisk) => bigint): bigint =>
    disks.reduce((total, disk) => total + each(disk), 0n)
  await session.query(
    `INSERT INTO catalog.backups (repository, backup, vm_identity, vm_display_name, sequence,
       point_time_ms, size_bytes, stored_bytes, message, removed)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
     ON CONFLICT (repository, backup) DO UPDATE SET
       vm_identity = excluded.vm_identity, vm_display_name = excluded.vm_display_name,
       sequence = excluded.sequence, point_time_ms = excluded.point_time_ms,
       size_bytes = excluded.size_bytes, stored_bytes = excluded.stored_bytes,
       message = excluded.message, removed = excluded.removed`,
    [
      repository,
      backup,
      searchable(vmIdentity),
      searchable(vmDisplayName),
      sequence,
      Math.trunc(pointTime?.getTime() ?? 0),
      sum(({ sizeBytes }) => sizeBytes),
      sum(({ storedBytes }) => storedBytes),
      Buffer.from(proto.Backup.encode({ ...message, name: `backups/${backup}` }).finish()),
      message.removeTime !== undefined,
    ],
  )
  await session.query('DELETE FROM catalog.disks WHERE repository = $1 AND backup = $2', [
    repository,
    backup,
  ])
  for (const disk of disks) {
    await session.query(
      `INSERT INTO catalog.disks (repository, backup, disk, size_bytes, stored_bytes, root)
       VALUES ($1, $2, $3, $4, $5, $6)
       ON CONFLICT (repository, backup, disk) DO NOTHING`,
      [repository, backup, searchable(disk.disk), disk.sizeBytes, disk.storedBytes, disk.root],
    )
  }
}

const searchable = (text: string): string => text.replaceAll('\0', '\u{fffd}')

const repositoryOfRow = (row: RepositoryRow): StoredRepository => ({
  name: row.name,
  folder: row.folder,
  repositoryId: row.repository_id,
  requestId: row.request_id,
  createTime: row.create_time,
  backupCount: row.backup_count,
  maintenance: {
    collectRepeatDuration: durationOf(row.collect_repeat_ms),
    undoDuration: durationOf(row.undo_ms),
    verifyRepeatDuration: durationOf(row.verify_repeat_ms),
    saveRepeatDuration: durationOf(row.save_repeat_ms),
    verifyBytesPerSecond: row.verify_bytes_per_second,
    collectBytesPerSecond: row.collect_bytes_per_second,
  },
})

const durationOf = (ms: bigint | null) => (ms === null ? undefined : durationFromMs(Number(ms)))

const valuesOf = (maintenance: catalog.Maintenance): (number | bigint | null)[] => [
  ...[
    maintenance.collectRepeatDuration,
    maintenance.undoDuration,
    maintenance.verifyRepeatDuration,
    maintenance.saveRepeatDuration,
  ].map((duration) => (duration ? msFromDuration(duration) : null)),
  maintenance.verifyBytesPerSecond,
  maintenance.collectBytesPerSecond,
]

const backupOfRow = ({ repository, backup, ...row }: BackupRow): Backup => ({
  ...proto.Backup.decode(row.message),
  name: `repositories/${repository}/backups/${backup}`,
  verifyTime: row.verify_time ?? undefined,
  damaged: row.damaged,
})

const alreadyExists = (name: string, known: string): BackupError =>
  new BackupError(
    'ALREADY_EXISTS',
    known === name
      ? `create repositories/${name}: there is one of that name; choose another`
      : `create repositories/${name}: its folder is in the catalog as repositories/${known} already; use that name`,
    { name: `repositories/${name}`, known: `repositories/${known}` },
  )
