// The sessions this process knows. Running ones stay until they end; ended ones can be asked about
// for a while and are then forgotten. Nothing of this survives the process: the repository is the
// truth about what was committed.
import { after } from '@blockferry/core'
import { argumentInvalid, BackupError } from '@blockferry/errors'
import type { Session } from './session.ts'

export interface KeepLimits {
  endedKeptMs: number
  endedKeptMax: number
}

export class Sessions {
  readonly #limits: KeepLimits
  readonly #byId = new Map<string, Session>()
  readonly #starting = new Map<string, Promise<Session>>()
  #closed = false

  constructor(limits: KeepLimits) {
    this.#limits = limits
  }

  /** Errors: SESSION_NOT_FOUND, ARGUMENT_INVALID. */
  find(name: string): Session {
    const id = /^sessions\/(.+)$/s.exec(name)?.[1]
    if (id === undefined) throw argumentInvalid('name', name, 'give sessions/{session}')
    const session = this.#byId.get(id)
    if (session) return session
    throw new BackupError(
      'SESSION_NOT_FOUND',
      `find ${name}: this mover does not know it, it may have been restarted; start it again`,
      { name },
    )
  }

  /** Every session, also ended ones. */
  all(): Session[] {
    return [...this.#byId.values()]
  }

  /**
   * The session of that id when `isSame` recognizes it and it has not failed, else a new one. Calls
   * for one id wait for each other.
   */
  async startOnce(
    id: string,
    isSame: (session: Session) => boolean,
    open: () => Promise<Session>,
  ): Promise<Session> {
    if (!/^[A-Za-z0-9._-]{1,63}$/.test(id)) {
      throw argumentInvalid('session_id', id, 'give letters, digits, ., _ and -, at most 63')
    }
    while (this.#starting.has(id)) await this.#starting.get(id)?.catch(() => {})
    const known = this.#byId.get(id)
    if (known && !known.failure && isSame(known)) return known
    const starting = this.#start(id, known, open)
    this.#starting.set(id, starting)
    try {
      return await starting
    } finally {
      this.#starting.delete(id)
    }
  }

  /** Stops everything that runs; nothing can be started any more. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.allSettled(this.#starting.values())
    await Promise.all(this.all().map((session) => session.stop(stopped())))
  }

  async #start(
    id: string,
    known: Session | undefined,
    open: () => Promise<Session>,
  ): Promise<Session> {
    if (this.#closed) throw stopped()
    const session = await open()
    if (known) await known.stop(fenced(known.name))
    this.#byId.set(id, session)
    session.start()
    void session.end.then(() => this.#forgetLater(session))
    return session
  }

  #forgetLater(session: Session): void {
    after(this.#limits.endedKeptMs, () => this.#forget(session))
    const ended = this.all().filter((other) => other.ended)
    for (const oldest of ended.slice(0, -this.#limits.endedKeptMax)) this.#forget(oldest)
  }

  #forget(session: Session): void {
    if (this.#byId.get(session.id) === session) this.#byId.delete(session.id)
  }
}

/** Why a session ends when a newer one takes over. */
export const fenced = (name: string): BackupError =>
  new BackupError('RUN_FENCED', `${name}: a newer session took over; this one may not commit`, {
    name,
  })

const stopped = (): BackupError =>
  new BackupError('CANCELLED', 'the move service was stopped; start the session again')
