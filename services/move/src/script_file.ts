import { chmod, lstat, writeFile } from 'node:fs/promises'
import { BackupError } from '@blockferry/errors'
import { besidePath, isSameFile, placeNew, removeFile, sync, type TakeBack } from './place_image.ts'
import { atTarget } from './target_failure.ts'

/** A start script on its way to its place; a file that exists there is never touched. */
export class ScriptFile {
  readonly path: string
  readonly #part: string
  readonly #text: string

  private constructor(path: string, text: string, sessionId: string) {
    this.path = path
    this.#text = text
    this.#part = besidePath(path, '.', `.${sessionId}.part`)
  }

  /** Errors: TARGET_EXISTS, TARGET_DENIED. */
  static async prepare(path: string, text: string, sessionId: string): Promise<ScriptFile> {
    const script = new ScriptFile(path, text, sessionId)
    if (await isSameFile(script.#part, path)) await removeFile(path)
    await atTarget('prepare', path, () => removeFile(script.#part))
    if (await lstat(path).catch(() => null)) {
      const message = `write the start script ${path}: it exists; remove it or name another place`
      throw new BackupError('TARGET_EXISTS', message, { target: path })
    }
    return script
  }

  async place(): Promise<TakeBack> {
    await atTarget('write', this.#part, () => writeFile(this.#part, this.#text))
    await atTarget('set the mode of', this.#part, () => chmod(this.#part, 0o755))
    await sync(this.#part)
    return await placeNew(this.#part, this.path)
  }

  async cleanUp(): Promise<void> {
    await removeFile(this.#part)
  }
}
