import type { Logger } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import type { Native, StoredDamage } from '@blockferry/native'
import { move } from '@blockferry/proto'
import { MovingDisk } from './moving_disk.ts'
import { Session } from './session.ts'

/** Damages that the message tells; the log has them all. */
const toldMax = 5

/** Compares every stored byte of a repository with its digest. Needs no key. Its disk is the repository. */
export class CheckSession extends Session {
  readonly #native: Native
  readonly #folder: string
  readonly #log: Logger

  constructor(id: string, folder: string, native: Native, log: Logger) {
    super(id, move.Session_Kind.VERIFY, [new MovingDisk('repository', 0)], log)
    this.#native = native
    this.#folder = folder
    this.#log = log
  }

  protected async work(signal: AbortSignal): Promise<void> {
    const [disk] = this.disks
    // A folder that is no repository says so by itself.
    await this.#native.readIdentity(this.#folder)
    const report = await disk?.follow(this.#native.checkStored(this.#folder), signal)
    disk?.finish(null)
    if (!report || report.damages.length === 0) return
    for (const damage of report.damages) this.#log.error(damage, 'stored bytes are damaged')
    throw damaged(this.#folder, report.damages)
  }

  protected async cleanUp(): Promise<void> {}
}

function damaged(folder: string, damages: StoredDamage[]): BackupError {
  const told = damages.slice(0, toldMax).map(placeOf).join('; ')
  const more = damages.length > toldMax ? `; and ${damages.length - toldMax} more` : ''
  return new BackupError(
    'REPOSITORY_DAMAGED',
    `verify the stored bytes of ${folder}: ${told}${more}; verify the backups to see which of them are hit, and back up again what is lost`,
    { path: folder, damages: String(damages.length) },
  )
}

const placeOf = ({ path, what, offset, size_bytes }: StoredDamage): string =>
  size_bytes > 0 ? `${path}, ${size_bytes} bytes from ${offset}: ${what}` : `${path}: ${what}`
