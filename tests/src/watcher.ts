// Watches a machine from outside while it is backed up: a QMP monitor of the tests' own
// tells pauses, and the writer in the guest tells how long a write had to wait.
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { monotonicMs, sleep } from '@blockferry/core'
import { Qmp } from '@blockferry/hypervisor'

/** Extra argument for the guest: a second monitor, since a monitor serves one client. */
export const watchMonitor = (folder: string): string[] => [
  '-qmp',
  `unix:${folder}/watch.sock,server=on,wait=off`,
]

const lookEveryMs = 20

export interface Watched {
  /** Longest time between two rounds of the guest's writer, which come 5 times a second. */
  writeGapMs: number
  /** Longest time from STOP to RESUME by QEMU's own clock; of one that did not end, until now. */
  pauseMs: number
  pauseCount: number
}

export class Watcher implements AsyncDisposable {
  #qmp: Qmp
  #ticksPath: string
  #stopped = false
  #loop: Promise<void>
  #writeGapMs = 0
  #pauseMs = 0
  #pauseCount = 0
  #pausedSinceMs: number | null = null
  #ticksSize = 0
  #lastTickMs = monotonicMs()

  private constructor(qmp: Qmp, folder: string) {
    this.#qmp = qmp
    this.#ticksPath = join(folder, 'ticks')
    qmp.onEvent(({ event, timestampUs }) => {
      if (event === 'STOP') this.#pausedSinceMs = timestampUs / 1000
      if (event === 'RESUME' && this.#pausedSinceMs !== null) {
        this.#pauseCount++
        this.#pauseMs = Math.max(this.#pauseMs, timestampUs / 1000 - this.#pausedSinceMs)
        this.#pausedSinceMs = null
      }
    })
    this.#loop = this.#look()
  }

  static async start(folder: string): Promise<Watcher> {
    return new Watcher(await Qmp.connect(join(folder, 'watch.sock')), folder)
  }

  /** What was seen since the last call. */
  take(): Watched {
    this.#countGap()
    const stillPausedMs = this.#pausedSinceMs === null ? 0 : Number.POSITIVE_INFINITY
    const watched = {
      writeGapMs: this.#writeGapMs,
      pauseMs: Math.max(this.#pauseMs, stillPausedMs),
      pauseCount: this.#pauseCount,
    }
    this.#writeGapMs = 0
    this.#pauseMs = 0
    this.#pauseCount = 0
    this.#lastTickMs = monotonicMs()
    return watched
  }

  /** Waits until the guest writes again; how long that took since the last round. */
  async untilWriting(deadlineMs: number): Promise<void> {
    const size = statSync(this.#ticksPath).size
    const startMs = monotonicMs()
    while (statSync(this.#ticksPath).size === size) {
      if (monotonicMs() - startMs > deadlineMs) throw new Error('the guest does not write any more')
      await sleep(lookEveryMs)
    }
  }

  async status(): Promise<string> {
    const { status } = await this.#qmp.execute<{ status: string }>('query-status')
    return status
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true
    await this.#loop
    this.#qmp.close()
  }

  async #look(): Promise<void> {
    while (!this.#stopped) {
      const { size } = statSync(this.#ticksPath)
      if (size !== this.#ticksSize) {
        this.#countGap()
        this.#ticksSize = size
        this.#lastTickMs = monotonicMs()
      }
      await sleep(lookEveryMs)
    }
  }

  #countGap(): void {
    this.#writeGapMs = Math.max(this.#writeGapMs, monotonicMs() - this.#lastTickMs)
  }
}
