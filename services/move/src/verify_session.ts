import type { Logger } from '@blockferry/core'
import type { Manifest } from '@blockferry/native'
import { move } from '@blockferry/proto'
import type { MoveLimits } from './backup_session.ts'
import { MovingDisk } from './moving_disk.ts'
import type { HeldRepository } from './repositories.ts'
import { Session } from './session.ts'
import { workOnEach } from './turns.ts'

/** Reads, decodes and proves every chunk of a backup. */
export class VerifySession extends Session {
  readonly #manifest: Manifest
  readonly #held: HeldRepository
  readonly #limits: MoveLimits

  constructor(
    id: string,
    manifest: Manifest,
    held: HeldRepository,
    limits: MoveLimits,
    log: Logger,
  ) {
    const disks = manifest.disks.map((disk) => new MovingDisk(disk.disk_id, disk.size_bytes))
    super(id, move.Session_Kind.VERIFY, disks, log)
    this.#manifest = manifest
    this.#held = held
    this.#limits = limits
  }

  protected async work(signal: AbortSignal): Promise<void> {
    using _ = await this.#limits.turns.take(signal)
    await workOnEach(this.disks, this.#limits.disksMax, signal, async (disk, stop) => {
      const stored = this.#manifest.disks.find(({ disk_id }) => disk_id === disk.id)
      const root = stored?.root ?? null
      const task = this.#held.repository.verifyDisk({ root, size_bytes: disk.sizeBytes })
      await disk.run(task, stop)
      disk.finish(root)
    })
  }

  protected async cleanUp(): Promise<void> {
    this.#held[Symbol.dispose]()
  }
}
