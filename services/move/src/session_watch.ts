// Which sessions that a repository shows are dead: left behind by a program that is gone, on whatever
// machine. A collection would wait for them for ever.
//
// A session that works writes files, or replaces its checkpoint, all the time; only this process'
// monotonic clock says how long it has not. So a session is dead when nothing of it changed for
// deadMs under our eyes.
import { createHash } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { monotonicMs } from '@blockferry/core'
import type { Repository } from '@blockferry/native'

interface Seen {
  signs: string
  sinceMs: number
}

export class SessionWatch {
  readonly #deadMs: number
  /** By folder and session. */
  readonly #seen = new Map<string, Seen>()

  constructor(deadMs: number) {
    this.#deadMs = deadMs
  }

  /** The sessions of the repository in `folder` that are dead by now. */
  async look(folder: string, repository: Repository): Promise<string[]> {
    const open = await repository.listOpenSessions()
    const nowMs = monotonicMs()
    const keys = new Set(open.map((session) => keyOf(folder, session)))
    for (const key of this.#seen.keys()) {
      if (key.startsWith(`${folder}\0`) && !keys.has(key)) this.#seen.delete(key)
    }
    const dead: string[] = []
    for (const session of open) {
      const signs = await signsOf(folder, session)
      const before = this.#seen.get(keyOf(folder, session))
      if (before?.signs !== signs) {
        this.#seen.set(keyOf(folder, session), { signs, sinceMs: nowMs })
      } else if (nowMs - before.sinceMs >= this.#deadMs) {
        dead.push(session)
      }
    }
    return dead
  }
}

const keyOf = (folder: string, session: string): string => `${folder}\0${session}`

/** Changes whenever the session writes. */
async function signsOf(folder: string, session: string): Promise<string> {
  const [vm = '', writer = ''] = session.split('/')
  const sessions = join(folder, 'sessions', vm)
  const signs = createHash('sha256')
  for (const name of (await readdir(sessions).catch(() => [])).sort()) {
    if (!name.startsWith(writer) && !name.endsWith('.checkpoint')) continue
    const found = await stat(join(sessions, name)).catch(() => null)
    signs.update(`${name} ${found?.size} ${found?.mtimeMs}\n`)
  }
  return signs.digest('hex')
}
