import type { Logger } from '@blockferry/core'
import type { CollectOptions, CollectReport, PackTotals } from '@blockferry/native'
import { move } from '@blockferry/proto'
import { MovingDisk } from './moving_disk.ts'
import type { HeldRepository } from './repositories.ts'
import { Session } from './session.ts'
import type { SessionWatch } from './session_watch.ts'

/** Gives back the space of what no backup of a repository needs. Its one disk is the repository. */
export class CollectSession extends Session {
  readonly #options: Omit<CollectOptions, 'dead_sessions'>
  readonly #folder: string
  readonly #held: HeldRepository
  readonly #watch: SessionWatch
  #report: CollectReport | null = null

  constructor(
    id: string,
    folder: string,
    options: Omit<CollectOptions, 'dead_sessions'>,
    held: HeldRepository,
    watch: SessionWatch,
    log: Logger,
  ) {
    const disk = new MovingDisk('repository', held.repository.info().stored_bytes)
    super(id, move.Session_Kind.COLLECT, [disk], log)
    this.#folder = folder
    this.#options = options
    this.#held = held
    this.#watch = watch
  }

  override view(): move.Session {
    if (!this.#report) return super.view()
    return { ...super.view(), collectReport: describe(this.#report, this.#options.dry_run) }
  }

  protected async work(signal: AbortSignal): Promise<void> {
    const { repository } = this.#held
    const dead_sessions = await this.#watch.look(this.#folder, repository)
    const task = repository.collect({ ...this.#options, dead_sessions })
    const [disk] = this.disks
    this.#report = (await disk?.follow(task, signal)) ?? null
    disk?.finish(null)
  }

  protected async cleanUp(): Promise<void> {
    this.#held[Symbol.dispose]()
  }
}

function describe(report: CollectReport, dryRun: boolean): move.CollectReport {
  return {
    dryRun,
    droppedBackups: report.dropped_backups.map((name) => name.slice(name.indexOf('/') + 1)),
    storedBytes: BigInt(report.stored_bytes),
    liveBytes: BigInt(report.live_bytes),
    deleted: totals(report.deleted),
    tombstoned: totals(report.tombstoned),
    copied: totals(report.copied),
    spared: totals(report.spared),
    waiting: totals(report.waiting),
    waitsFor: report.waits_for,
  }
}

const totals = ({ pack_count, size_bytes }: PackTotals): move.PackTotals => ({
  packCount: BigInt(pack_count),
  sizeBytes: BigInt(size_bytes),
})
