// The keys of this installation, one for each encrypted repository that it may use: so that nightly
// backups need nobody to type a passphrase. Each opens a key slot of its own, which can be removed.
import { randomBytes } from 'node:crypto'
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { BackupError } from '@blockferry/errors'
import type { Secret } from '@blockferry/native'
import { keySizeBytes } from './recovery_key.ts'

export class OwnKeys {
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
  }

  /** Null when there is none for the repository. */
  async find(repositoryId: string): Promise<Secret | null> {
    try {
      const bytes = await readFile(this.#path(repositoryId))
      if (bytes.length === keySizeBytes) return { kind: 'key', bytes }
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return null
      throw unreadable(this.#path(repositoryId), (thrown as NodeJS.ErrnoException).code ?? '')
    }
    throw unreadable(this.#path(repositoryId), 'it is cut off')
  }

  /** The one that is there, or a new one; durable before a slot is made for it. */
  async make(repositoryId: string): Promise<Secret> {
    const known = await this.find(repositoryId)
    if (known) return known
    const isNew = (await mkdir(this.#folder, { recursive: true, mode: 0o700 })) !== undefined
    if (isNew) await syncFolder(dirname(this.#folder))
    const bytes = randomBytes(keySizeBytes)
    const path = this.#path(repositoryId)
    const fresh = `${path}.new-${randomBytes(4).toString('hex')}`
    const file = await open(fresh, 'wx', 0o600)
    try {
      await file.writeFile(bytes)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(fresh, path)
    await syncFolder(this.#folder)
    return { kind: 'key', bytes }
  }

  #path(repositoryId: string): string {
    return join(this.#folder, `${repositoryId}.key`)
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  await folder.sync().finally(() => folder.close())
}

const unreadable = (path: string, cause: string): BackupError =>
  new BackupError(
    'KEY_MISSING',
    `read this installation's key ${path}: ${cause}; put it aside and unlock the repository again`,
    { path, cause },
  )
