import type { Logger } from '@blockferry/core'
import { asBackupError } from '@blockferry/errors'
import type { ListedManifest, Manifest, Progress, Task, Verification } from '@blockferry/native'
import { move } from '@blockferry/proto'
import { backupFromManifest } from '@blockferry/repository'
import type { MoveLimits } from './backup_session.ts'
import { MovingDisk, nothingYet } from './moving_disk.ts'
import type { HeldRepository } from './repositories.ts'
import { Session } from './session.ts'
import { workOnEach } from './turns.ts'
import { type NamedBackup, VerifyFindings } from './verify_findings.ts'

export interface VerifyWork {
  held: HeldRepository
  /** 0: no limit. */
  bytesPerSecond: number
}

/** Reads, decodes and proves every block of one backup. */
export class VerifySession extends Session {
  readonly #manifest: Manifest
  readonly #work: VerifyWork
  readonly #limits: MoveLimits
  readonly #findings = new VerifyFindings()

  constructor(id: string, manifest: Manifest, work: VerifyWork, limits: MoveLimits, log: Logger) {
    const disks = manifest.disks.map((disk) => new MovingDisk(disk.disk_id, disk.size_bytes))
    super(id, move.Session_Kind.VERIFY, disks, log)
    this.#manifest = manifest
    this.#work = work
    this.#limits = limits
  }

  override view(): move.Session {
    return { ...super.view(), verifyReport: this.#findings.view() }
  }

  protected async work(signal: AbortSignal): Promise<void> {
    const { held, bytesPerSecond } = this.#work
    using _ = await this.#limits.turns.take(signal)
    const verification = held.repository.openVerification(bytesPerSecond)
    const named = namedBackup(this.#manifest)
    await workOnEach(this.disks, this.#limits.disksMax, signal, async (disk, stop) => {
      const stored = this.#manifest.disks.find(({ disk_id }) => disk_id === disk.id)
      const root = stored?.root ?? null
      const task = verification.verifyDisk({ root, size_bytes: disk.sizeBytes })
      this.#findings.addDisk(named, disk.id, await disk.follow(task, stop))
      disk.finish(root)
    })
    this.#findings.endBackup(named)
    const failure = this.#findings.failure(
      `verify ${named.backup}`,
      'restore these places from another backup or another copy of the repository',
    )
    if (failure) throw failure
  }

  protected async cleanUp(): Promise<void> {
    this.#work.held[Symbol.dispose]()
  }
}

/** Proves every backup of a repository; what they share is read once. Its disk is the repository. */
export class VerifyAllSession extends Session {
  readonly #listed: ListedManifest[]
  readonly #work: VerifyWork
  readonly #limits: MoveLimits
  readonly #findings = new VerifyFindings()
  readonly #disk: WholeRepository

  /** `listed` are proven in their order. */
  constructor(
    id: string,
    listed: ListedManifest[],
    work: VerifyWork,
    limits: MoveLimits,
    log: Logger,
  ) {
    const disk = new WholeRepository(listed)
    super(id, move.Session_Kind.VERIFY, [disk], log)
    this.#disk = disk
    this.#listed = listed
    this.#work = work
    this.#limits = limits
  }

  override view(): move.Session {
    return { ...super.view(), verifyReport: this.#findings.view() }
  }

  protected async work(signal: AbortSignal): Promise<void> {
    const { held, bytesPerSecond } = this.#work
    using _ = await this.#limits.turns.take(signal)
    const verification = held.repository.openVerification(bytesPerSecond)
    for (const listed of this.#listed) {
      if (listed.kind === 'damaged') {
        this.#findings.addManifest(unnamed, listed.path, listed.reason, listed.message)
      } else {
        await this.#prove(listed.manifest, verification, signal)
      }
    }
    this.#disk.finish(null)
    const failure = this.#findings.failure(
      'verify all backups',
      'back up the VMs that are named in full: what they still have of it is stored anew',
    )
    if (failure) throw failure
  }

  async #prove(manifest: Manifest, verification: Verification, signal: AbortSignal): Promise<void> {
    const named = this.#name(manifest)
    if (!named) return
    for (const { disk_id, root, size_bytes } of manifest.disks) {
      signal.throwIfAborted()
      const task = verification.verifyDisk({ root, size_bytes })
      this.#findings.addDisk(named, disk_id, await this.#disk.follow(task, signal))
    }
    this.#findings.endBackup(named)
  }

  /** Null, and noted, when its description cannot be read. */
  #name(manifest: Manifest): NamedBackup | null {
    try {
      return namedBackup(manifest)
    } catch (thrown) {
      const failure = asBackupError(thrown)
      if (!failure) throw thrown
      const named = { ...unnamed, backup: manifest.backup_id }
      this.#findings.addManifest(named, '', failure.reason, failure.message)
      return null
    }
  }

  protected async cleanUp(): Promise<void> {
    this.#work.held[Symbol.dispose]()
  }
}

/** Counts the disks of all backups as one. */
class WholeRepository extends MovingDisk {
  #before: Progress

  constructor(listed: ListedManifest[]) {
    const sizeBytes = listed
      .flatMap((each) => (each.kind === 'manifest' ? each.manifest.disks : []))
      .reduce((sum, { size_bytes }) => sum + size_bytes, 0)
    super('repository', sizeBytes)
    this.#before = { ...nothingYet, size_bytes: sizeBytes }
  }

  override async follow<T>(task: Task<T>, signal: AbortSignal): Promise<T> {
    const before = this.#before
    const all = { ...task, progress: () => sumOf(before, task.progress()) }
    const result = await super.follow(all, signal)
    this.#before = all.progress()
    return result
  }
}

function sumOf(before: Progress, now: Progress): Progress {
  const sum = { ...before }
  for (const key of Object.keys(nothingYet) as (keyof typeof nothingYet)[]) sum[key] += now[key]
  return sum
}

const unnamed: NamedBackup = { backup: '', vmIdentity: '', vmDisplayName: '' }

/** Errors: MANIFEST_CORRUPT, REPOSITORY_TOO_NEW. */
function namedBackup(manifest: Manifest): NamedBackup {
  const { vmIdentity, vmDisplayName } = backupFromManifest(manifest)
  return { backup: manifest.backup_id, vmIdentity, vmDisplayName }
}
