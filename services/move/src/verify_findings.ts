import { BackupError, isReason } from '@blockferry/errors'
import type { DamageReport, StoredDamage } from '@blockferry/native'
import { move } from '@blockferry/proto'

const damagesMax = 1_000
/** Damages that a message tells; the report has more. */
const toldMax = 5

/** A backup as a report names it. */
export interface NamedBackup {
  backup: string
  vmIdentity: string
  vmDisplayName: string
}

/** What a verification has found so far. */
export class VerifyFindings {
  readonly #proven: string[] = []
  readonly #damaged: string[] = []
  readonly #damages: move.Damage[] = []
  #damageCount = 0
  #damagedBytes = 0n

  /** One disk that was read to its end. Its backup is still to be ended with `endBackup`. */
  addDisk(named: NamedBackup, disk: string, report: DamageReport): void {
    for (const { offset, size_bytes, reason, message } of report.ranges) {
      const place = { offsetBytes: BigInt(offset), sizeBytes: BigInt(size_bytes) }
      this.#add({ ...named, disk, ...place, reason, message })
    }
    this.#damagedBytes += BigInt(report.damaged_bytes)
  }

  /** A manifest that cannot be used: its backup is lost as a whole. */
  addManifest(named: NamedBackup, path: string, reason: string, message: string): void {
    this.#add({ ...named, path, reason, message })
    if (named.backup !== '') this.#damaged.push(named.backup)
  }

  addFile({ path, what, offset, size_bytes }: StoredDamage): void {
    const place = { offsetBytes: BigInt(offset), sizeBytes: BigInt(size_bytes) }
    this.#add({ path, ...place, reason: 'REPOSITORY_DAMAGED', message: what })
    this.#damagedBytes += BigInt(size_bytes)
  }

  /** REQUIRES: all disks of it were added. */
  endBackup({ backup }: NamedBackup): void {
    const isDamaged = this.#damages.some((damage) => damage.backup === backup)
    const list = isDamaged ? this.#damaged : this.#proven
    list.push(backup)
  }

  view(): move.VerifyReport {
    return {
      provenBackups: this.#proven,
      damagedBackups: this.#damaged,
      damages: this.#damages,
      damagedBytes: this.#damagedBytes,
    }
  }

  /** Null without damage. `doing` is what was verified, `advice` what to do. */
  failure(doing: string, advice: string): BackupError | null {
    const [first] = this.#damages
    if (!first) return null
    const told = this.#damages.slice(0, toldMax).map(damageText).join('; ')
    const rest = this.#damageCount - Math.min(this.#damageCount, toldMax)
    const more = rest > 0 ? `; and ${rest} more` : ''
    const reason = isReason(first.reason) ? first.reason : 'REPOSITORY_DAMAGED'
    return new BackupError(reason, `${doing}: ${told}${more}; ${advice}`, {
      damages: String(this.#damageCount),
      damaged_backups: this.#damaged.join(' '),
    })
  }

  #add(damage: Partial<move.Damage>): void {
    this.#damageCount++
    // At least one of each backup, so that `endBackup` sees it.
    const isFirst = !this.#damages.some(({ backup }) => backup === damage.backup)
    if (this.#damages.length < damagesMax || isFirst) {
      this.#damages.push(move.Damage.fromPartial(damage))
    }
  }
}

function damageText({ backup, vmDisplayName, disk, path, ...damage }: move.Damage): string {
  const { offsetBytes, sizeBytes, message } = damage
  const whose = backup === '' ? '' : `backup ${backup} of ${vmDisplayName}`
  const what = disk === '' ? path : `disk ${disk}`
  const where = sizeBytes > 0n ? `${sizeBytes} bytes from ${offsetBytes}` : ''
  return `${[whose, what, where].filter((text) => text !== '').join(', ')}: ${message}`
}
