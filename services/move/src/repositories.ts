// The repositories this mover has open: each folder once, shared by all sessions.
//
// A handle belongs to the folder it was opened on, told by device and inode. When the folder
// vanished and another one stands in its place (unmounted, restored from a copy), the old handle
// is put aside until the last session that uses it has ended.
import { randomBytes } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { argumentInvalid, asBackupError, BackupError } from '@blockferry/errors'
import type { KeySlot, Native, Repository, RepositoryInfo, Secret } from '@blockferry/native'
import type { OwnKeys } from './own_keys.ts'
import { keySizeBytes, recoveryKeyText } from './recovery_key.ts'
import { readSecretFile } from './secret_file.ts'

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
  readonly #ownKeys: OwnKeys
  readonly #opened = new Map<string, Promise<Opened>>()
  readonly #aside = new Set<Opened>()

  constructor(native: Native, ownKeys: OwnKeys) {
    this.#native = native
    this.#ownKeys = ownKeys
  }

  /**
   * Encrypted when a passphrase file is named. A crash after the repository is there leaves one that
   * the passphrase opens: `unlock` and a new recovery key make up for what is lacking.
   */
  async create(
    folder: string,
    passphraseFile: string,
  ): Promise<{ info: RepositoryInfo; recoveryKey: string }> {
    checkFolder(folder)
    const secret = passphraseFile === '' ? null : await readSecretFile(passphraseFile)
    const info = await this.#native.createRepository(folder, secret)
    if (!secret) return { info, recoveryKey: '' }
    await this.#enrol(folder, info.repository_id, secret)
    const { recoveryKey } = await this.#addRecoveryKey(folder, secret, 'recovery key')
    return { info, recoveryKey }
  }

  /** This mover gets a key of its own. Errors: KEY_WRONG, ARGUMENT_INVALID. */
  async unlock(folder: string, passphraseFile: string): Promise<void> {
    checkFolder(folder)
    const { repository_id, encrypted } = await this.#native.readIdentity(folder)
    if (!encrypted) {
      const advice = 'the repository is not encrypted, leave it out'
      throw argumentInvalid('passphrase_file', passphraseFile, advice)
    }
    await this.#enrol(folder, repository_id, await readSecretFile(passphraseFile))
  }

  async listKeySlots(folder: string): Promise<KeySlot[]> {
    checkFolder(folder)
    await this.#native.readIdentity(folder)
    return await this.#native.listKeySlots(folder)
  }

  /** An empty `passphraseFile` draws a recovery key. */
  async addKeySlot(
    folder: string,
    passphraseFile: string,
    label: string,
  ): Promise<{ slot: KeySlot; recoveryKey: string }> {
    const own = await this.#ownSecret(folder)
    if (passphraseFile === '') {
      return await this.#addRecoveryKey(folder, own, label || 'recovery key')
    }
    const added = await readSecretFile(passphraseFile)
    return { slot: await this.#native.addKeySlot(folder, own, added, label), recoveryKey: '' }
  }

  async removeKeySlot(folder: string, slotId: string): Promise<void> {
    await this.#native.removeKeySlot(folder, await this.#ownSecret(folder), slotId)
  }

  /** For what needs no repository that is open. */
  get native(): Native {
    return this.#native
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

  /**
   * The same where no key is needed. Without one the repository is opened for the caller alone, and
   * rejects with KEY_MISSING what needs it.
   */
  async holdEvenLocked(folder: string, access: RepositoryAccess): Promise<HeldRepository> {
    if (!(await this.isLocked(folder))) return await this.hold(folder, access)
    const repository = await openAs(access, (readOnly) =>
      this.#native.openWithoutKey(folder, readOnly),
    )
    return { repository, [Symbol.dispose]: () => repository.close() }
  }

  /** Whether it is encrypted and this mover has no key of it. */
  async isLocked(folder: string): Promise<boolean> {
    checkFolder(folder)
    const { repository_id, encrypted } = await this.#native.readIdentity(folder)
    return encrypted && (await this.#ownKeys.find(repository_id)) === null
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
    const { repository_id, encrypted } = await this.#native.readIdentity(folder)
    const secret = encrypted ? await this.#ownKeys.find(repository_id) : null
    return await openAs(access, async (readOnly): Promise<Opened> => {
      const repository = await this.#native.openRepository(folder, readOnly, secret)
      // Held by who opens it, so that nobody puts it aside before the opener goes on.
      return { repository, readOnly, place, holders: 1 }
    })
  }

  /** Our key first, then its slot: a slot without a key would open for nobody. Errors: KEY_WRONG. */
  async #enrol(folder: string, repositoryId: string, secret: Secret): Promise<void> {
    // Before anything is made: a key that opens nothing would say KEY_WRONG from then on.
    ;(await this.#native.openRepository(folder, true, secret)).close()
    const own = await this.#ownKeys.make(repositoryId)
    if (await this.#opens(folder, own)) return
    await this.#native.addKeySlot(folder, secret, own, `installation on ${hostname()}`)
  }

  async #opens(folder: string, secret: Secret): Promise<boolean> {
    try {
      ;(await this.#native.openRepository(folder, true, secret)).close()
      return true
    } catch (thrown) {
      if (asBackupError(thrown)?.reason === 'KEY_WRONG') return false
      throw thrown
    }
  }

  async #addRecoveryKey(folder: string, secret: Secret, label: string) {
    const bytes = randomBytes(keySizeBytes)
    const slot = await this.#native.addKeySlot(folder, secret, { kind: 'key', bytes }, label)
    return { slot, recoveryKey: recoveryKeyText(bytes) }
  }

  async #ownSecret(folder: string): Promise<Secret> {
    checkFolder(folder)
    const { repository_id, encrypted } = await this.#native.readIdentity(folder)
    if (!encrypted) throw argumentInvalid('folder', folder, 'the repository is not encrypted')
    const own = await this.#ownKeys.find(repository_id)
    if (own) return own
    throw new BackupError(
      'KEY_MISSING',
      `open repository ${folder}: this installation has no key of it; unlock it with a passphrase or the recovery key`,
      { path: folder },
    )
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

/** For writing, or else for reading when that is enough. */
async function openAs<Opened>(
  access: RepositoryAccess,
  open: (readOnly: boolean) => Promise<Opened>,
): Promise<Opened> {
  try {
    return await open(false)
  } catch (thrown) {
    const reason = asBackupError(thrown)?.reason
    const unwritable = reason === 'REPOSITORY_READ_ONLY' || reason === 'REPOSITORY_DENIED'
    if (access === 'read' && unwritable) return await open(true)
    throw thrown
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
