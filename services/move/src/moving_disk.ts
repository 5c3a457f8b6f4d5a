import type { Progress, Task } from '@blockferry/native'
import { move } from '@blockferry/proto'

export const nothingYet: Omit<Progress, 'size_bytes'> = {
  position_bytes: 0,
  allocated_bytes: 0,
  changed_bytes: 0,
  read_bytes: 0,
  stored_bytes: 0,
  block_count: 0,
  compared_bytes: 0,
}

interface Outcome {
  root: string
  resumedAtBytes: number
}

/** One disk of a session, and the native work on it. */
export class MovingDisk {
  readonly id: string
  readonly sizeBytes: number
  /** Where a restored disk ends up; empty for a backup or verification. */
  targetPath = ''
  /** Where the image that it replaced is kept. */
  keptPath = ''
  #progress: () => Progress
  #outcome: Outcome | null = null

  constructor(id: string, sizeBytes: number) {
    this.id = id
    this.sizeBytes = sizeBytes
    this.#progress = () => ({ ...nothingYet, size_bytes: sizeBytes })
  }

  /** Runs native work on the disk; the signal cancels it. */
  async run<T extends Progress>(task: Task<T>, signal: AbortSignal): Promise<T> {
    const last = await this.follow(task, signal)
    this.#progress = () => last
    return last
  }

  /** The same for work whose result is not its last progress. */
  async follow<T>(task: Task<T>, signal: AbortSignal): Promise<T> {
    this.#progress = () => task.progress()
    const cancel = () => task.cancel()
    if (signal.aborted) cancel()
    signal.addEventListener('abort', cancel, { once: true })
    try {
      return await task.result
    } finally {
      signal.removeEventListener('abort', cancel)
    }
  }

  finish(root: string | null, resumedAtBytes = 0): void {
    this.#outcome = { root: root ?? '', resumedAtBytes }
  }

  /** What the disk looked like when it was last asked, without its task. */
  freeze(): void {
    const last = this.#progress()
    this.#progress = () => last
  }

  view(): move.DiskProgress {
    const progress = this.#progress()
    return move.DiskProgress.create({
      disk: this.id,
      sizeBytes: BigInt(progress.size_bytes),
      positionBytes: BigInt(progress.position_bytes),
      allocatedBytes: BigInt(progress.allocated_bytes),
      changedBytes: BigInt(progress.changed_bytes),
      readBytes: BigInt(progress.read_bytes),
      storedBytes: BigInt(progress.stored_bytes),
      blockCount: BigInt(progress.block_count),
      root: this.#outcome?.root ?? '',
      resumedAtBytes: BigInt(this.#outcome?.resumedAtBytes ?? 0),
      targetPath: this.targetPath,
      keptPath: this.keptPath,
      comparedBytes: BigInt(progress.compared_bytes),
      done: this.#outcome !== null,
    })
  }
}
