// Which sessions that a repository shows are dead: left behind by a program that is gone, on whatever
// machine. A collection would wait for them for ever.
//
// A session that works writes files, or replaces its checkpoint, all the time; only this process'
// monotonic clock says how long it has not. So a session is dead when nothing of it changed for
// deadMs under our eyes: a look that failed, as those do whose storage is away, starts anew. Should
// one be taken for dead that only slept, it fails with RUN_FENCED and nothing is lost.
import { createHash } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { monotonicMs } from '@blockferry/core'
import type { Repository } from '@blockferry/native'

interface Seen {
  signs: string
  sinceMs: number
}

export class SessionWatch {
  readonly #deadMs: number
  /** By folder of the repository, then by session. */
  readonly #seen = new Map<string, Map<string, Seen>>()

  constructor(deadMs: number) {
    this.#deadMs = deadMs
  }

  /** The sessions of the repository in `folder` that are dead by now. */
  async look(folder: string, repository: Pick<Repository, 'listOpenSessions'>): Promise<string[]> {
    const before = this.#seen.get(folder)
    this.#seen.delete(folder)
    const open = await repository.listOpenSessions()
    const nowMs = monotonicMs()
    const now = new Map<string, Seen>()
    for (const session of open) {
      const signs = await signsOf(folder, session)
      const seen = before?.get(session)
      now.set(session, seen?.signs === signs ? seen : { signs, sinceMs: nowMs })
    }
    this.#seen.set(folder, now)
    return [...now]
      .filter(([, { sinceMs }]) => nowMs - sinceMs >= this.#deadMs)
      .map(([session]) => session)
  }
}

/** Changes whenever the session writes. */
async function signsOf(folder: string, session: string): Promise<string> {
  const signs = createHash('sha256')
  const own = join(folder, 'sessions', session)
  for (const path of await filesIn(own)) signs.update(await signOf(path))
  for (const path of await filesIn(dirname(own))) {
    if (path.endsWith('.checkpoint')) signs.update(await signOf(path))
  }
  return signs.digest('hex')
}

/** Of what is gone by now: nothing. */
async function filesIn(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(unlessGone<string[]>([]))
  return names.sort().map((name) => join(folder, name))
}

async function signOf(path: string): Promise<string> {
  const found = await stat(path).catch(unlessGone(null))
  return `${path} ${found?.size} ${found?.mtimeMs}\n`
}

function unlessGone<T>(otherwise: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === 'ENOENT') return otherwise
    throw error
  }
}
