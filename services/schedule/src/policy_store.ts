// Policies in the database: the only SQL about them. Times are those of the database's clock,
// the one clock that all schedule processes share.
import { isUniqueViolation, type Pool } from '@blockferry/postgres'
import { type backup, durationFromMs, type move, retention, schedule } from '@blockferry/proto'
import type { Repeating } from './due.ts'

export interface PolicySettings {
  vms: string[]
  repository: string
  /** Null: only by hand. */
  repeatMs: number | null
  level: backup.Level
  skipQuiesce: boolean
  paused: boolean
  compression: move.Compression
  /** Null: everything is kept. */
  retention: retention.Retention | null
  vmRetentions: schedule.VmRetention[]
  tags: string[]
  /** 0: no lock. */
  lockMs: number
}

export interface PolicyRow extends PolicySettings {
  name: string
  requestId: string
  createTime: Date
  nextRunTime: Date | null
}

const columns = `name, request_id, vms, repository, repeat_ms, level, skip_quiesce, paused,
  codec, codec_level, retention, vm_retentions, tags, lock_ms, create_time, next_run_time`

export class PolicyStore {
  private readonly pool: Pool

  constructor(pool: Pool) {
    this.pool = pool
  }

  /** Null: there is one of that name already. */
  async insert(name: string, requestId: string, set: PolicySettings): Promise<PolicyRow | null> {
    try {
      const { rows } = await this.pool.query<RawPolicy>(
        `INSERT INTO schedule.policies
           (name, request_id, vms, repository, repeat_ms, level, skip_quiesce, paused,
            codec, codec_level, retention, vm_retentions, tags, lock_ms, next_run_time)
         VALUES ($1, $2, $3, $4, $5::bigint, $6, $7, $8, $9, $10, $11, $12, $13, $14,
           CASE WHEN NOT $8 THEN
             date_trunc('milliseconds', now()) + $5::bigint * interval '1 millisecond' END)
         RETURNING ${columns}`,
        [name, requestId, ...valuesOf(set)],
      )
      return rows[0] ? rowOf(rows[0]) : null
    } catch (thrown) {
      if (isUniqueViolation(thrown)) return null
      throw thrown
    }
  }

  /** Null: there is none. The rhythm is kept unless the repeat or the pause changes. */
  async update(name: string, set: PolicySettings): Promise<PolicyRow | null> {
    const { rows } = await this.pool.query<RawPolicy>(
      `UPDATE schedule.policies SET vms = $2, repository = $3, repeat_ms = $4::bigint, level = $5,
         skip_quiesce = $6, paused = $7, codec = $8, codec_level = $9, retention = $10,
         vm_retentions = $11, tags = $12, lock_ms = $13,
         next_run_time = CASE
           WHEN $7 THEN NULL
           WHEN repeat_ms = $4::bigint AND next_run_time IS NOT NULL THEN next_run_time
           ELSE date_trunc('milliseconds', now()) + $4::bigint * interval '1 millisecond' END
       WHERE name = $1 RETURNING ${columns}`,
      [name, ...valuesOf(set)],
    )
    return rows[0] ? rowOf(rows[0]) : null
  }

  async find(name: string): Promise<PolicyRow | null> {
    const { rows } = await this.pool.query<RawPolicy>(
      `SELECT ${columns} FROM schedule.policies WHERE name = $1`,
      [name],
    )
    return rows[0] ? rowOf(rows[0]) : null
  }

  async list(size: number, offset: number): Promise<PolicyRow[]> {
    const { rows } = await this.pool.query<RawPolicy>(
      `SELECT ${columns} FROM schedule.policies ORDER BY name LIMIT $1 OFFSET $2`,
      [size, offset],
    )
    return rows.map(rowOf)
  }

  async all(): Promise<PolicyRow[]> {
    const { rows } = await this.pool.query<RawPolicy>(
      `SELECT ${columns} FROM schedule.policies ORDER BY name`,
    )
    return rows.map(rowOf)
  }

  /** False: there is none. */
  async delete(name: string): Promise<boolean> {
    const { count } = await this.pool.query('DELETE FROM schedule.policies WHERE name = $1', [name])
    return count > 0
  }

  /** Everything that repeats, with the time it is now. */
  async repeating(): Promise<{ policies: Repeating[]; nowMs: number }> {
    const { rows } = await this.pool.query<RawPolicy & { now: Date }>(
      `SELECT ${columns}, now() AS now FROM schedule.policies
       WHERE repeat_ms IS NOT NULL AND next_run_time IS NOT NULL AND NOT paused`,
    )
    const policies = rows.map((row) => ({
      name: row.name,
      repeatMs: Number(row.repeat_ms),
      nextRunMs: row.next_run_time?.getTime() ?? 0,
    }))
    return { policies, nowMs: rows[0]?.now.getTime() ?? 0 }
  }

  /** Moves a policy on from the time it was due at, unless another process did. */
  async moveOn(name: string, dueMs: number, nextRunMs: number): Promise<void> {
    await this.pool.query(
      `UPDATE schedule.policies SET next_run_time = to_timestamp($3::double precision / 1000)
       WHERE name = $1 AND floor(extract(epoch FROM next_run_time) * 1000) = $2 AND NOT paused`,
      [name, dueMs, nextRunMs],
    )
  }
}

interface RawPolicy {
  name: string
  request_id: string
  vms: string[]
  repository: string
  repeat_ms: bigint | null
  level: backup.Level
  skip_quiesce: boolean
  paused: boolean
  codec: move.Compression_Codec
  codec_level: number
  retention: unknown
  vm_retentions: unknown[]
  tags: string[]
  lock_ms: bigint
  create_time: Date
  next_run_time: Date | null
}

const valuesOf = (set: PolicySettings): unknown[] => [
  set.vms,
  set.repository,
  set.repeatMs,
  set.level,
  set.skipQuiesce,
  set.paused,
  set.compression.codec,
  set.compression.level,
  set.retention && JSON.stringify(retention.Retention.toJSON(set.retention)),
  JSON.stringify(set.vmRetentions.map(schedule.VmRetention.toJSON)),
  set.tags,
  set.lockMs,
]

const rowOf = (raw: RawPolicy): PolicyRow => ({
  name: raw.name,
  requestId: raw.request_id,
  vms: raw.vms,
  repository: raw.repository,
  repeatMs: raw.repeat_ms === null ? null : Number(raw.repeat_ms),
  level: raw.level,
  skipQuiesce: raw.skip_quiesce,
  paused: raw.paused,
  compression: { codec: raw.codec, level: raw.codec_level },
  retention: raw.retention === null ? null : retention.Retention.fromJSON(raw.retention),
  vmRetentions: raw.vm_retentions.map(schedule.VmRetention.fromJSON),
  tags: raw.tags,
  lockMs: Number(raw.lock_ms),
  createTime: raw.create_time,
  nextRunTime: raw.next_run_time,
})

/** The policy as the API shows it. */
export const publicPolicy = (row: PolicyRow): schedule.Policy => ({
  name: `policies/${row.name}`,
  vms: row.vms,
  repository: row.repository,
  repeatDuration: row.repeatMs === null ? undefined : durationFromMs(row.repeatMs),
  level: row.level,
  skipQuiesce: row.skipQuiesce,
  paused: row.paused,
  createTime: row.createTime,
  nextRunTime: row.nextRunTime ?? undefined,
  compression: row.compression,
  retention: row.retention ?? undefined,
  vmRetentions: row.vmRetentions,
  tags: row.tags,
  lockDuration: row.lockMs > 0 ? durationFromMs(row.lockMs) : undefined,
})
