// A session carries the disks of one backup, restore or verification.
//
//     MOVING → DONE                 restore, verify
//     MOVING → MOVED → DONE         backup: MOVED waits for the commit
//     MOVING or MOVED → FAILED      an error, a cancel, or a newer session of the VM
//
// Invariant: an ended session (DONE, FAILED) never changes again and holds nothing: no native
// session, no temporary file, no process. It ends in one place, `run`.
import { type Logger, sleep, wallMs } from '@blockferry/core'
import { asBackupError, BackupError } from '@blockferry/errors'
import { move } from '@blockferry/proto'
import type { MovingDisk } from './moving_disk.ts'

const State = move.Session_State

export abstract class Session {
  readonly id: string
  readonly disks: MovingDisk[]
  readonly #kind: move.Session_Kind
  readonly #log: Logger
  readonly #abort = new AbortController()
  readonly #startTime = new Date(wallMs())
  readonly #watchers = new Set<() => void>()
  #state: move.Session_State = State.MOVING
  #endTime: Date | undefined
  #failure: BackupError | null = null
  #ended: Promise<void> = Promise.resolve()

  constructor(id: string, kind: move.Session_Kind, disks: MovingDisk[], log: Logger) {
    this.id = id
    this.#kind = kind
    this.disks = disks
    this.#log = log.child({ session: id })
  }

  get name(): string {
    return `sessions/${this.id}`
  }

  get state(): move.Session_State {
    return this.#state
  }

  get ended(): boolean {
    return this.#state === State.DONE || this.#state === State.FAILED
  }

  /** Why it ended in FAILED. */
  get failure(): BackupError | null {
    return this.#failure
  }

  /** Resolves when the session has ended and holds nothing. */
  get end(): Promise<void> {
    return this.#ended
  }

  /** Starts to work; called once. */
  start(): void {
    this.#ended = this.#run()
  }

  /** Stops the session for `cause` and waits until nothing of it is left. */
  async stop(cause: BackupError): Promise<void> {
    this.#abort.abort(cause)
    await this.#ended
  }

  view(): move.Session {
    return move.Session.create({
      name: this.name,
      kind: this.#kind,
      state: this.#state,
      disks: this.disks.map((disk) => disk.view()),
      errorReason: this.#failure?.reason ?? '',
      errorMessage: this.#failure?.message ?? '',
      errorMetadata: this.#failure?.metadata ?? {},
      startTime: this.#startTime,
      endTime: this.#endTime,
    })
  }

  /** Resolves when the state has changed, at the latest after `ms`. */
  async changed(ms: number, signal: AbortSignal): Promise<void> {
    const wake = new AbortController()
    const watcher = () => wake.abort()
    this.#watchers.add(watcher)
    try {
      await sleep(ms, AbortSignal.any([signal, wake.signal])).catch(() => signal.throwIfAborted())
    } finally {
      this.#watchers.delete(watcher)
    }
  }

  /** Does the work. What it throws ends the session in FAILED. */
  protected abstract work(signal: AbortSignal): Promise<void>

  /** Removes what was not finished and gives back what is held; also after success. */
  protected abstract cleanUp(succeeded: boolean): Promise<void>

  protected setState(state: move.Session_State): void {
    this.#state = state
    for (const wake of this.#watchers) wake()
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort
    let failure: BackupError | null = null
    try {
      await this.work(signal)
    } catch (thrown) {
      failure = this.#failureOf(signal.aborted ? signal.reason : thrown)
    }
    try {
      await this.cleanUp(failure === null)
    } catch (thrown) {
      // The session has its outcome already; what could not be removed now is removed by the
      // next session of the same name or VM.
      this.#log.warn({ err: thrown }, 'clean up')
    }
    for (const disk of this.disks) disk.freeze()
    this.#failure = failure
    this.#endTime = new Date(wallMs())
    const seen = failure ? { reason: failure.reason, message: failure.message } : {}
    this.#log.info(seen, failure ? 'failed' : 'done')
    this.setState(failure ? State.FAILED : State.DONE)
  }

  #failureOf(thrown: unknown): BackupError {
    const known = asBackupError(thrown)
    if (known) return known
    this.#log.error({ err: thrown }, 'defect')
    return new BackupError(
      'INTERNAL',
      'internal error; the log of the move service has the details',
    )
  }
}
