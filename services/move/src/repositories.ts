// The repositories this mover has open: each folder once, shared by all sessions.
//
// A handle belongs to the folder it was opened on, told by device and inode. When the folder
// vanished and another one stands in its place (unmounted, restored from a copy), the old handle
// is put aside until the last session that uses it has ended.
import { stat } from 'node:fs/promises'
import { argumentInvalid, asBackupError } from '@blockferry/errors'
import type { Native, Repository, RepositoryInfo } from '@blockferry/native'

export type RepositoryAccess = 'write' | 'read'

/** A repository in use; disposing of it gives it back. */
export interface HeldRepository extends Disposable {
  repository: Repository
}

interface Opened {
  repository: Repository
  readOnly: boolean
  place: string
  holders: number
}

export class Repositories implements Disposable {
  readonly #native: Native
  readonly #opened = new Map<string, Promise<Opened>>()
  readonly #aside = new Set<Opened>()

  constructor(native: Native) {
    this.#native = native
  }

  async create(folder: string): Promise<RepositoryInfo> {
    checkFolder(folder)
    return await this.#native.createRepository(folder, null)
  }

  /** With `read` a repository that cannot be written is opened all the same. Errors: REPOSITORY_… */
  async hold(folder: string, access: RepositoryAccess): Promise<HeldRepository> {
    checkFolder(folder)
    const opened = await this.#holdOn(folder, access)
    let held = true
    return {
      repository: opened.repository,
      [Symbol.dispose]: () => {
        if (!held) return
        held = false
        opened.holders--
        this.#closeWhenUnused(opened)
      },
    }
  }

  /** REQUIRES: no session uses a repository any more. */
  [Symbol.dispose](): void {
    for (const opening of this.#opened.values()) {
      opening.then(
        ({ repository }) => repository.close(),
        () => {},
      )
    }
    for (const { repository } of this.#aside) repository.close()
    this.#opened.clear()
    this.#aside.clear()
  }

  async #holdOn(folder: string, access: RepositoryAccess): Promise<Opened> {
    const place = await placeOf(folder)
    const before = this.#opened.get(folder)
    const opened = await before?.catch(() => null)
    const usable = opened && opened.place === place && !(opened.readOnly && access === 'write')
    if (usable) {
      opened.holders++
      return opened
    }
    // Somebody else may have opened it while this call looked; then theirs is looked at.
    if (this.#opened.get(folder) !== before) return await this.#holdOn(folder, access)
    if (opened) this.#putAside(opened)
    const opening = this.#open(folder, access, place)
    this.#opened.set(folder, opening)
    opening.catch(() => {
      if (this.#opened.get(folder) === opening) this.#opened.delete(folder)
    })
    return await opening
  }

  async #open(folder: string, access: RepositoryAccess, place: string): Promise<Opened> {
    const open = async (readOnly: boolean): Promise<Opened> => {
      const repository = await this.#native.openRepository(folder, readOnly, null)
      // Held by who opens it, so that nobody puts it aside before the opener goes on.
      return { repository, readOnly, place, holders: 1 }
    }
    try {
      return await open(false)
    } catch (thrown) {
      const reason = asBackupError(thrown)?.reason
      const unwritable = reason === 'REPOSITORY_READ_ONLY' || reason === 'REPOSITORY_DENIED'
      if (access === 'read' && unwritable) return await open(true)
      throw thrown
    }
  }

  #putAside(opened: Opened): void {
    this.#aside.add(opened)
    this.#closeWhenUnused(opened)
  }

  #closeWhenUnused(opened: Opened): void {
    if (opened.holders > 0 || !this.#aside.delete(opened)) return
    opened.repository.close()
  }
}

function checkFolder(folder: string): void {
  if (folder.startsWith('/') && !folder.includes('\0')) return
  throw argumentInvalid('folder', folder, 'give an absolute path')
}

/** Which folder it is; empty when there is none, so that opening says what is wrong. */
async function placeOf(folder: string): Promise<string> {
  try {
    const { dev, ino } = await stat(folder)
    return `${dev}:${ino}`
  } catch {
    return ''
  }
}
