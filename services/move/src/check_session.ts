import type { Logger } from '@blockferry/core'
import type { Native } from '@blockferry/native'
import { move } from '@blockferry/proto'
import { MovingDisk } from './moving_disk.ts'
import { Session } from './session.ts'
import { VerifyFindings } from './verify_findings.ts'

/** Compares every stored byte of a repository with its digest. Needs no key. Its disk is the repository. */
export class CheckSession extends Session {
  readonly #native: Native
  readonly #folder: string
  readonly #bytesPerSecond: number
  readonly #log: Logger
  readonly #findings = new VerifyFindings()

  /** `bytesPerSecond` 0: no limit. */
  constructor(id: string, folder: string, bytesPerSecond: number, native: Native, log: Logger) {
    super(id, move.Session_Kind.VERIFY, [new MovingDisk('repository', 0)], log)
    this.#native = native
    this.#folder = folder
    this.#bytesPerSecond = bytesPerSecond
    this.#log = log
  }

  override view(): move.Session {
    return { ...super.view(), verifyReport: this.#findings.view() }
  }

  protected async work(signal: AbortSignal): Promise<void> {
    const [disk] = this.disks
    // A folder that is no repository says so by itself.
    await this.#native.readIdentity(this.#folder)
    const task = this.#native.checkStored(this.#folder, this.#bytesPerSecond)
    const report = await disk?.follow(task, signal)
    disk?.finish(null)
    for (const damage of report?.damages ?? []) {
      this.#log.error(damage, 'stored bytes are damaged')
      this.#findings.addFile(damage)
    }
    const failure = this.#findings.failure(
      `verify the stored bytes of ${this.#folder}`,
      'verify the blocks of all backups to see which of them are hit, and back up again what is lost',
    )
    if (failure) throw failure
  }

  protected async cleanUp(): Promise<void> {}
}
