// Runs in the database: the only SQL about them. A run's row is written before the step that it
// announces, and only the newest claim may write it: every update names its token's number.
import { EventEmitter } from 'node:events'
import { sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { isUniqueViolation, type Pool, transaction } from '@blockferry/postgres'
import { move, schedule, snapshot } from '@blockferry/proto'
import type { Waiting } from './admit.ts'
import type { Beating } from './lease.ts'
import {
  hasEnded,
  type Kind,
  type Plan,
  type RunRow,
  type ShownRow,
  State,
  stateWord,
} from './run_row.ts'

export interface NewRun {
  id: string
  /** Method and request_id; null when the caller gave none. */
  requestKey: string | null
  kind: Kind
  /** QUEUED, or FAILED for a run of a policy that cannot even start. */
  state: State
  vmIdentity: string
  vmDisplayName: string
  host: string
  repository: string
  vmTaken: string | null
  detail: schedule.Run
  plan: Plan
}

/** A run that has not ended. */
export interface Unfinished extends Waiting, Beating {
  holder: string | null
}

/** What its holder changes in a run; what is absent stays. */
export interface RunChange {
  state?: State
  detail?: schedule.Run
  pointIds?: string[]
  /** The point of the last id; null when a new id was drawn. */
  point?: snapshot.Point | null
}

export interface RunFilter {
  /** Identity or name; empty: all. */
  vm: string
  activeOnly: boolean
  size: number
  offset: number
}

// Without plan and point, which may be large and change rarely or never.
const shown = `run_id, kind, state, vm_identity, vm_display_name, host, repository, vm_taken, detail,
  point_ids, cancel_requested, token_number, attempt_count, version, create_time, start_time,
  end_time`

export class RunStore {
  private readonly pool: Pool
  /** The id of each run whose end this process wrote. */
  private readonly ends = new EventEmitter().setMaxListeners(0)

  constructor(pool: Pool) {
    this.pool = pool
  }

  /** Adds a run; a request that was seen before gets the run it made. Errors: VM_BUSY. */
  async insert(run: NewRun): Promise<ShownRow> {
    try {
      const { rows } = await this.pool.query<RawShown>(
        `INSERT INTO schedule.runs (run_id, request_key, kind, state, ended, vm_identity,
           vm_display_name, host, repository, vm_taken, detail, plan, end_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
           CASE WHEN $5 THEN now() END) RETURNING ${shown}`,
        [
          run.id,
          run.requestKey,
          run.kind,
          run.state,
          hasEnded(run.state),
          run.vmIdentity,
          run.vmDisplayName,
          run.host,
          run.repository,
          run.vmTaken,
          JSON.stringify(schedule.Run.toJSON(run.detail)),
          JSON.stringify(planToJson(run.plan)),
        ],
      )
      return shownOf(first(rows))
    } catch (thrown) {
      const known = run.requestKey === null ? null : await this.ofRequest(run.requestKey)
      if (known) return known
      if (isUniqueViolation(thrown, 'runs_one_per_vm')) throw await this.vmBusy(run)
      throw thrown
    }
  }

  private async vmBusy(run: NewRun): Promise<BackupError> {
    const { rows } = await this.pool.query<{ run_id: string; state: State }>(
      'SELECT run_id, state FROM schedule.runs WHERE vm_taken = $1 AND NOT ended',
      [run.vmTaken],
    )
    const owner = `runs/${rows[0]?.run_id ?? ''}`
    const doing = rows[0] ? ` (${stateWord(rows[0].state)})` : ''
    return new BackupError(
      'VM_BUSY',
      `queue a run of VM ${run.vmDisplayName}: ${owner}${doing} works on it; wait for its end or cancel it`,
      { vm: run.vmIdentity, owner },
    )
  }

  async ofRequest(requestKey: string): Promise<ShownRow | null> {
    const { rows } = await this.pool.query<RawShown>(
      `SELECT ${shown} FROM schedule.runs WHERE request_key = $1`,
      [requestKey],
    )
    return rows[0] ? shownOf(rows[0]) : null
  }

  async find(id: string): Promise<ShownRow | null> {
    const { rows } = await this.pool.query<RawShown>(
      `SELECT ${shown} FROM schedule.runs WHERE run_id = $1`,
      [id],
    )
    return rows[0] ? shownOf(rows[0]) : null
  }

  /** The run when it has changed since `version`. */
  async changedSince(id: string, version: bigint): Promise<ShownRow | null> {
    const { rows } = await this.pool.query<RawShown>(
      `SELECT ${shown} FROM schedule.runs WHERE run_id = $1 AND version > $2`,
      [id, version],
    )
    return rows[0] ? shownOf(rows[0]) : null
  }

  /** Waits `ms`, or only until this process writes the end of the run. */
  async awaitEnd(id: string, ms: number, signal: AbortSignal): Promise<void> {
    const wake = new AbortController()
    const wakeUp = () => wake.abort()
    this.ends.once(id, wakeUp)
    try {
      await sleep(ms, AbortSignal.any([signal, wake.signal])).catch(() => signal.throwIfAborted())
    } finally {
      this.ends.off(id, wakeUp)
    }
  }

  /** Newest first. */
  async list({ vm, activeOnly, size, offset }: RunFilter): Promise<ShownRow[]> {
    const { rows } = await this.pool.query<RawShown>(
      `SELECT ${shown} FROM schedule.runs
       WHERE ($1 = '' OR vm_identity = $1 OR vm_display_name = $1) AND NOT ($2 AND ended)
       ORDER BY create_time DESC, run_id DESC LIMIT $3 OFFSET $4`,
      [vm, activeOnly, size, offset],
    )
    return rows.map(shownOf)
  }

  /** Whether a run of that kind, of that policy, has not ended. */
  async hasUnfinished(kind: Kind, policy: string): Promise<boolean> {
    const { rows } = await this.pool.query(
      `SELECT FROM schedule.runs
       WHERE NOT ended AND kind = $1 AND detail->>'policy' = $2 LIMIT 1`,
      [kind, policy],
    )
    return rows.length > 0
  }

  /** Forgets runs that ended so long ago. */
  async forgetEnded(ageMs: number): Promise<number> {
    const { count } = await this.pool.query(
      `DELETE FROM schedule.runs
       WHERE ended AND end_time < now() - $1::bigint * interval '1 millisecond'`,
      [ageMs],
    )
    return count
  }

  /**
   * The newest run of a kind that was about a whole repository, dry runs aside, how many there are,
   * and the time it is. Runs whose time is still to come are not the newest: the clock was ahead.
   */
  async newestOfRepository(
    kind: Kind,
    repository: string,
  ): Promise<{ row: ShownRow | null; count: bigint; nowMs: number }> {
    const { rows } = await this.pool.query<Partial<RawShown> & { count: bigint; now: Date }>(
      `WITH found AS (
         SELECT ${shown} FROM schedule.runs
         WHERE kind = $1 AND repository = $2 AND vm_identity = ''
           AND NOT coalesce((plan->'collect'->>'dryRun')::boolean, false))
       SELECT now() AS now, (SELECT count(*) FROM found) AS count, newest.*
       FROM (SELECT 1) AS one LEFT JOIN LATERAL (
         SELECT * FROM found WHERE create_time <= now()
         ORDER BY create_time DESC, run_id DESC LIMIT 1) AS newest ON true`,
      [kind, repository],
    )
    const { count, now, ...raw } = first(rows)
    return { row: isRaw(raw) ? shownOf(raw) : null, count, nowMs: now.getTime() }
  }

  /**
   * Claims the runs that `choose` picks from all unfinished ones, oldest first. Serializable: of
   * two processes that look at the same time one sees the other's claims, so the limits hold for
   * all processes together. A row that somebody else holds locked is left for the next time.
   */
  claim(holder: string, choose: (unfinished: Unfinished[]) => string[]): Promise<RunRow[]> {
    return transaction(this.pool, async (session) => {
      // A process that is stopped right here must not keep its rows from the others.
      await session.query("SET LOCAL idle_in_transaction_session_timeout = '5s'")
      const unfinished = await session.query<RawUnfinished>(
        `SELECT run_id, kind, host, repository, vm_taken, detail->>'policy' AS policy, create_time,
           token_number, heartbeat, holder
         FROM schedule.runs WHERE NOT ended ORDER BY create_time, run_id`,
      )
      const chosen = choose(unfinished.rows.map(unfinishedOf))
      if (chosen.length === 0) return []
      const { rows } = await session.query<RawRun>(
        `UPDATE schedule.runs SET holder = $1, token_number = nextval('schedule.fencing_numbers'),
           attempt_count = attempt_count + 1, heartbeat = heartbeat + 1, version = version + 1,
           start_time = coalesce(start_time, now())
         WHERE run_id IN (SELECT run_id FROM schedule.runs WHERE run_id = ANY($2)
                          FOR UPDATE SKIP LOCKED)
         RETURNING ${shown}, plan, point`,
        [holder, chosen],
      )
      return rows.map(rowOf)
    })
  }

  /** Counts the heartbeat up. Null: somebody else holds the run now, or it has ended. */
  async beat(
    id: string,
    tokenNumber: bigint,
  ): Promise<{ heartbeat: bigint; cancelRequested: boolean } | null> {
    const { rows } = await this.pool.query<{ heartbeat: bigint; cancel_requested: boolean }>(
      `UPDATE schedule.runs SET heartbeat = heartbeat + 1
       WHERE run_id = $1 AND token_number = $2 AND holder IS NOT NULL
       RETURNING heartbeat, cancel_requested`,
      [id, tokenNumber],
    )
    const [row] = rows
    return row ? { heartbeat: row.heartbeat, cancelRequested: row.cancel_requested } : null
  }

  /**
   * Writes what the holder changed. Null: it holds the run no longer, or, with `unlessCancelled`,
   * somebody asked the run to stop.
   */
  async save(
    id: string,
    tokenNumber: bigint,
    change: RunChange,
    unlessCancelled = false,
  ): Promise<ShownRow | null> {
    const ended = change.state !== undefined && hasEnded(change.state)
    const { rows } = await this.pool.query<RawShown>(
      `UPDATE schedule.runs SET state = coalesce($3, state), detail = coalesce($4, detail),
         point_ids = coalesce($5, point_ids), point = coalesce($6, point), ended = $7,
         holder = CASE WHEN $7 THEN NULL ELSE holder END,
         end_time = CASE WHEN $7 THEN now() END, version = version + 1
       WHERE run_id = $1 AND token_number = $2 AND holder IS NOT NULL
         AND NOT ($8 AND cancel_requested)
       RETURNING ${shown}`,
      [
        id,
        tokenNumber,
        change.state ?? null,
        change.detail ? JSON.stringify(schedule.Run.toJSON(change.detail)) : null,
        change.pointIds ?? null,
        change.point === undefined ? null : pointToJson(change.point),
        ended,
        unlessCancelled,
      ],
    )
    if (ended) this.ends.emit(id)
    return rows[0] ? shownOf(rows[0]) : null
  }

  /** Lets go of a run, so that the next claim need not wait for the lease to die. */
  async giveBack(id: string, tokenNumber: bigint): Promise<void> {
    await this.pool.query(
      'UPDATE schedule.runs SET holder = NULL WHERE run_id = $1 AND token_number = $2',
      [id, tokenNumber],
    )
  }

  /**
   * Asks a run to stop; one that nobody has begun ends at once. Null: it has ended, or its
   * backup is being committed, which cannot be taken back.
   */
  async requestCancel(id: string, failure: schedule.RunError): Promise<ShownRow | null> {
    const { rows } = await this.pool.query<RawShown>(
      `UPDATE schedule.runs SET cancel_requested = true, version = version + 1,
         ended = attempt_count = 0,
         state = CASE WHEN attempt_count = 0 THEN $2 ELSE state END,
         detail = CASE WHEN attempt_count = 0 THEN detail || $3::jsonb ELSE detail END,
         end_time = CASE WHEN attempt_count = 0 THEN now() END
       WHERE run_id = $1 AND NOT ended AND state NOT IN ($4, $5) RETURNING ${shown}`,
      [
        id,
        State.CANCELLED,
        JSON.stringify({ error: schedule.RunError.toJSON(failure) }),
        State.COMMITTING,
        State.RECORDING,
      ],
    )
    return rows[0] ? shownOf(rows[0]) : null
  }

  /**
   * The incarnation of this database's fencing tokens in a repository; drawn once. The row is
   * locked meanwhile, so that two processes do not draw two and fence each other.
   */
  async incarnation(repositoryId: string, draw: () => Promise<bigint>): Promise<bigint> {
    const known = await this.knownIncarnation(repositoryId)
    if (known) return known
    return await transaction(
      this.pool,
      async (session) => {
        await session.query(
          'INSERT INTO schedule.incarnations VALUES ($1, NULL) ON CONFLICT DO NOTHING',
          [repositoryId],
        )
        const { rows } = await session.query<{ incarnation: bigint | null }>(
          'SELECT incarnation FROM schedule.incarnations WHERE repository_id = $1 FOR UPDATE',
          [repositoryId],
        )
        const meanwhile = rows[0]?.incarnation
        if (meanwhile) return meanwhile
        const drawn = await draw()
        await session.query(
          'UPDATE schedule.incarnations SET incarnation = $2 WHERE repository_id = $1',
          [repositoryId, drawn],
        )
        return drawn
      },
      { isolation: 'read committed' },
    )
  }

  private async knownIncarnation(repositoryId: string): Promise<bigint | null> {
    const { rows } = await this.pool.query<{ incarnation: bigint | null }>(
      'SELECT incarnation FROM schedule.incarnations WHERE repository_id = $1',
      [repositoryId],
    )
    return rows[0]?.incarnation ?? null
  }
}

interface RawShown {
  run_id: string
  kind: Kind
  state: State
  vm_identity: string
  vm_display_name: string
  host: string
  repository: string
  vm_taken: string | null
  detail: unknown
  point_ids: string[]
  cancel_requested: boolean
  token_number: bigint
  attempt_count: number
  version: bigint
  create_time: Date
  start_time: Date | null
  end_time: Date | null
}

interface RawRun extends RawShown {
  plan: JsonPlan
  point: unknown
}

interface RawUnfinished {
  run_id: string
  kind: Kind
  host: string
  repository: string
  vm_taken: string | null
  policy: string | null
  create_time: Date
  token_number: bigint
  heartbeat: bigint
  holder: string | null
}

interface JsonPlan {
  repositoryFolder: string
  repositoryId: string
  backup?: unknown
  restore?: unknown
  verify?: unknown
  collect?: unknown
  retain?: unknown
  save?: true
}

const isRaw = (raw: Partial<RawShown>): raw is RawShown => typeof raw.run_id === 'string'

const shownOf = (raw: RawShown): ShownRow => ({
  id: raw.run_id,
  kind: raw.kind,
  state: raw.state,
  vmIdentity: raw.vm_identity,
  vmDisplayName: raw.vm_display_name,
  host: raw.host,
  repository: raw.repository,
  vmTaken: raw.vm_taken,
  detail: schedule.Run.fromJSON(raw.detail),
  pointIds: raw.point_ids,
  cancelRequested: raw.cancel_requested,
  tokenNumber: raw.token_number,
  attemptCount: raw.attempt_count,
  version: raw.version,
  createTime: raw.create_time,
  startTime: raw.start_time,
  endTime: raw.end_time,
})

const rowOf = (raw: RawRun): RunRow => ({
  ...shownOf(raw),
  plan: planOf(raw.plan),
  point: raw.point === null ? null : snapshot.Point.fromJSON(raw.point),
})

const unfinishedOf = (raw: RawUnfinished): Unfinished => ({
  runId: raw.run_id,
  kind: raw.kind,
  host: raw.host,
  repository: raw.repository,
  vmTaken: raw.vm_taken,
  policy: raw.policy ?? '',
  createTimeMs: raw.create_time.getTime(),
  tokenNumber: raw.token_number,
  heartbeat: raw.heartbeat,
  holder: raw.holder,
})

const planOf = ({ repositoryFolder, repositoryId, ...kinds }: JsonPlan): Plan => ({
  repositoryFolder,
  repositoryId,
  ...(kinds.backup ? { backup: schedule.StartBackupRequest.fromJSON(kinds.backup) } : {}),
  ...(kinds.restore ? { restore: move.StartRestoreRequest.fromJSON(kinds.restore) } : {}),
  ...(kinds.verify ? { verify: move.StartVerifyRequest.fromJSON(kinds.verify) } : {}),
  ...(kinds.collect ? { collect: move.StartCollectRequest.fromJSON(kinds.collect) } : {}),
  ...(kinds.retain ? { retain: schedule.Policy.fromJSON(kinds.retain) } : {}),
  ...(kinds.save ? { save: true } : {}),
})

const planToJson = ({ repositoryFolder, repositoryId, ...kinds }: Plan): JsonPlan => ({
  repositoryFolder,
  repositoryId,
  ...(kinds.backup ? { backup: schedule.StartBackupRequest.toJSON(kinds.backup) } : {}),
  ...(kinds.restore ? { restore: move.StartRestoreRequest.toJSON(kinds.restore) } : {}),
  ...(kinds.verify ? { verify: move.StartVerifyRequest.toJSON(kinds.verify) } : {}),
  ...(kinds.collect ? { collect: move.StartCollectRequest.toJSON(kinds.collect) } : {}),
  ...(kinds.retain ? { retain: schedule.Policy.toJSON(kinds.retain) } : {}),
  ...(kinds.save ? { save: true } : {}),
})

const pointToJson = (point: snapshot.Point | null): string =>
  JSON.stringify(point ? snapshot.Point.toJSON(point) : null)

function first<T>(rows: T[]): T {
  const [row] = rows
  if (row === undefined) throw new Error('the statement returned no row')
  return row
}
