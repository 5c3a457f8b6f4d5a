// Disks of a backup to new places. All images are written under temporary names first and get
// their own names together at the end: a restore that fails or is cancelled leaves nothing.
import { dirname } from 'node:path'
import type { Logger } from '@blockferry/core'
import { asBackupError, BackupError } from '@blockferry/errors'
import { move } from '@blockferry/proto'
import type { MoveLimits } from './backup_session.ts'
import { sync, type TakeBack } from './place_image.ts'
import type { HeldRepository } from './repositories.ts'
import type { RestoredImage } from './restored_image.ts'
import type { ScriptFile } from './script_file.ts'
import { Session } from './session.ts'
import { TargetFolders } from './target_folders.ts'
import { workOnEach } from './turns.ts'

export interface RestoreWork {
  images: RestoredImage[]
  script: ScriptFile | null
  held: HeldRepository
  runFolder: string
}

export class RestoreSession extends Session {
  readonly #work: RestoreWork
  readonly #limits: MoveLimits
  readonly #folders = new TargetFolders()

  constructor(id: string, work: RestoreWork, limits: MoveLimits, log: Logger) {
    super(
      id,
      move.Session_Kind.RESTORE,
      work.images.map(({ disk }) => disk),
      log,
    )
    this.#work = work
    this.#limits = limits
  }

  protected async work(signal: AbortSignal): Promise<void> {
    using _ = await this.#limits.turns.take(signal)
    const { images, held, runFolder } = this.#work
    for (const folder of this.#targetFolders()) await this.#folders.make(folder)
    await workOnEach(images, this.#limits.disksMax, signal, async (image, stop) => {
      try {
        await image.write(held.repository, runFolder, stop)
      } catch (thrown) {
        throw withPath(thrown, image)
      }
    })
    signal.throwIfAborted()
    await this.#placeAll()
  }

  protected async cleanUp(succeeded: boolean): Promise<void> {
    using _ = this.#work.held
    for (const image of this.#work.images) await image.cleanUp()
    await this.#work.script?.cleanUp()
    if (!succeeded) await this.#folders.takeBack()
  }

  async #placeAll(): Promise<void> {
    const { images, script } = this.#work
    const takeBacks: TakeBack[] = []
    try {
      for (const image of images) takeBacks.push(await image.place())
      if (script) takeBacks.push(await script.place())
    } catch (thrown) {
      for (const takeBack of takeBacks.reverse()) await takeBack()
      throw thrown
    }
    for (const folder of this.#targetFolders()) await sync(folder)
  }

  #targetFolders(): Set<string> {
    const { images, script } = this.#work
    const places = script ? [...images, script] : images
    return new Set(places.map(({ path }) => dirname(path)))
  }
}

/** Names the disk and its place, which a failure behind an NBD address cannot know. */
function withPath(thrown: unknown, { disk, path }: RestoredImage): unknown {
  const failure = asBackupError(thrown)
  if (!failure || failure.reason === 'CANCELLED') return thrown
  const metadata = { ...failure.metadata, disk: disk.id, target: path }
  const message = `restore disk ${disk.id} to ${path}: ${failure.message}`
  return new BackupError(failure.reason, message, metadata, { cause: thrown })
}
