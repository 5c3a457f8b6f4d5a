import { mkdir, rmdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { atTarget } from './target_failure.ts'

/** Folders that a restore makes, and takes back when it fails and they are empty. */
export class TargetFolders {
  readonly #made: string[] = []

  async make(folder: string): Promise<void> {
    const first = await atTarget('create the folder', folder, () =>
      mkdir(folder, { recursive: true }),
    )
    if (first === undefined) return
    const made: string[] = []
    for (let each = folder; each !== dirname(first); each = dirname(each)) made.push(each)
    this.#made.unshift(...made)
  }

  async takeBack(): Promise<void> {
    for (const folder of this.#made) await rmdir(folder).catch(() => {})
  }
}
