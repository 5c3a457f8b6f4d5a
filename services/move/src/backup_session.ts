// Disks of one point into a repository. Nothing is visible before the commit: the native session
// writes packs, and the manifest by one rename.
import { type Logger, wallMs } from '@blockferry/core'
import { argumentInvalid, BackupError } from '@blockferry/errors'
import type {
  CommitOptions,
  Compression,
  MovedDisk,
  Session as NativeSession,
} from '@blockferry/native'
import { backup as catalog, move, type snapshot } from '@blockferry/proto'
import { backupFromManifest, encodeManifestBody } from '@blockferry/repository'
import type { BackupPlan, PlannedDisk } from './backup_plan.ts'
import { MovingDisk } from './moving_disk.ts'
import type { HeldRepository } from './repositories.ts'
import { Session } from './session.ts'
import { type Turns, workOnEach } from './turns.ts'

export interface BackupWork {
  /** `{folder}\0{VM pseudonym}` */
  key: string
  backupId: string
  token: move.FencingToken
  point: snapshot.Point
  /** What the caller wants the manifest to say. */
  described: catalog.Backup
  plan: BackupPlan
  compression: Compression
  /** 0: no lock. */
  lockSeconds: number
  native: NativeSession
  held: HeldRepository
}

export interface MoveLimits {
  turns: Turns
  disksMax: number
  stallTimeoutMs: number
}

export class BackupSession extends Session {
  readonly #work: BackupWork
  readonly #limits: MoveLimits
  readonly #moved = new Map<string, MovedDisk>()
  #requestCommit: (decisions: catalog.DecisionNote[]) => void = () => {}
  readonly #commitRequested: Promise<catalog.DecisionNote[]>
  #committed: catalog.Backup | null = null

  constructor(id: string, work: BackupWork, limits: MoveLimits, log: Logger) {
    const disks = work.plan.disks.map((disk) => new MovingDisk(disk.id, disk.sizeBytes))
    super(id, move.Session_Kind.BACKUP, disks, log)
    this.#work = work
    this.#limits = limits
    this.#commitRequested = new Promise((resolve) => {
      this.#requestCommit = resolve
    })
  }

  /** One backup at a time writes under a key. */
  get key(): string {
    return this.#work.key
  }

  get pointId(): string {
    return this.#work.point.pointId
  }

  get token(): move.FencingToken {
    return this.#work.token
  }

  /** Writes the manifest. Asking again gives the same backup. */
  async commit(decisions: catalog.DecisionNote[]): Promise<catalog.Backup> {
    if (this.state === move.Session_State.MOVING) {
      throw argumentInvalid('name', this.name, 'its blocks still move; wait for STATE_MOVED')
    }
    this.#requestCommit(decisions)
    await this.end
    if (this.#committed) return this.#committed
    throw (
      this.failure ?? new BackupError('INTERNAL', `commit ${this.name}: it ended without outcome`)
    )
  }

  protected async work(signal: AbortSignal): Promise<void> {
    const { turns, disksMax } = this.#limits
    const { disks } = this.#work.plan
    {
      using _ = await turns.take(signal)
      await workOnEach(disks, disksMax, signal, (disk, stop) => this.#moveDisk(disk, stop))
    }
    const endTime = new Date(wallMs())
    this.setState(move.Session_State.MOVED)
    const decisions = await orAborted(this.#commitRequested, signal)
    const manifest = await this.#work.native.commit(this.#commitOptions(decisions, endTime))
    this.#committed = backupFromManifest(manifest)
  }

  protected async cleanUp(succeeded: boolean): Promise<void> {
    using _ = this.#work.held
    if (!succeeded) await this.#work.native.abort()
  }

  async #moveDisk(planned: PlannedDisk, signal: AbortSignal): Promise<void> {
    const task = this.#work.native.moveDisk({
      disk_id: planned.id,
      size_bytes: planned.sizeBytes,
      source: planned.source,
      changed: planned.changed,
      base: planned.base,
      earlier: planned.earlier,
      compression: this.#work.compression,
      stall_timeout_ms: this.#limits.stallTimeoutMs,
    })
    const disk = this.disks.find(({ id }) => id === planned.id)
    const moved = await disk?.run(task, signal)
    if (!moved)
      throw new BackupError('INTERNAL', `move disk ${planned.id}: it is not in the session`)
    disk?.finish(moved.root, moved.resumed_at_bytes)
    this.#moved.set(planned.id, moved)
  }

  #commitOptions(decisions: catalog.DecisionNote[], endTime: Date): CommitOptions {
    const { plan, backupId, lockSeconds } = this.#work
    const disks = plan.disks.map((disk) => ({
      disk_id: disk.id,
      root: this.#moved.get(disk.id)?.root ?? null,
      size_bytes: disk.sizeBytes,
    }))
    const body = encodeManifestBody(this.#describe(decisions, endTime))
    return {
      ...{ backup_id: backupId, base_backup_id: baseOf(plan), disks, body },
      lock_seconds: lockSeconds,
    }
  }

  #describe(decisions: catalog.DecisionNote[], endTime: Date): catalog.Backup {
    const { backupId, described, plan, point } = this.#work
    const { vm } = point
    const uncovered = described.uncoveredDisks.length > 0 ? described : vm
    return {
      ...described,
      name: `backups/${backupId}`,
      vmIdentity: described.vmIdentity || (vm?.identity ?? ''),
      vmDisplayName: described.vmDisplayName || (vm?.displayName ?? ''),
      method: described.method || point.method,
      consistency: described.consistency || point.consistency,
      pointId: point.pointId,
      pointTime: described.pointTime ?? point.pointTime,
      freezeDuration: described.freezeDuration ?? point.freezeDuration,
      pauseDuration: described.pauseDuration ?? point.pauseDuration,
      driver: described.driver || point.driver,
      vmConfigJson: described.vmConfigJson || point.vmConfigJson,
      baseBackup: baseOf(plan),
      endTime,
      disks: plan.disks.map((disk) => describeDisk(disk, this.#moved.get(disk.id))),
      uncoveredDisks: uncovered?.uncoveredDisks ?? [],
      decisions: withoutRepeats([
        ...described.decisions,
        ...point.decisions,
        ...plan.decisions,
        ...decisions,
      ]),
    }
  }
}

const baseOf = (plan: BackupPlan): string =>
  plan.disks.find(({ baseBackupId }) => baseBackupId !== '')?.baseBackupId ?? ''

function describeDisk(disk: PlannedDisk, moved: MovedDisk | undefined): catalog.BackupDisk {
  return catalog.BackupDisk.create({
    disk: disk.id,
    sizeBytes: disk.sizeBytes,
    root: moved?.root ?? '',
    format: disk.format,
    location: disk.location,
    allocatedBytes: moved?.allocated_bytes ?? 0,
    changedBytes: moved?.changed_bytes ?? 0,
    readBytes: moved?.read_bytes ?? 0,
    storedBytes: moved?.stored_bytes ?? 0,
    baseBackup: disk.baseBackupId,
  })
}

/** The first of each decision about each disk. */
function withoutRepeats(decisions: catalog.DecisionNote[]): catalog.DecisionNote[] {
  const seen = new Map<string, catalog.DecisionNote>()
  for (const decision of decisions) {
    const key = `${decision.decision} ${decision.disk}`
    if (!seen.has(key)) seen.set(key, decision)
  }
  return [...seen.values()]
}

function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject)
  })
}
