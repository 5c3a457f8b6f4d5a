// Disks of a backup into the images that are there. All images are held first, then all are
// marked, then they are written, and only when all are whole and durable the marks go: whenever it
// ends early, no set of images without a mark shows two instants.
import type { Logger } from '@blockferry/core'
import { move } from '@blockferry/proto'
import type { MoveLimits } from './backup_session.ts'
import type { DifferentialImage } from './differential_image.ts'
import type { HeldRepository } from './repositories.ts'
import { Session } from './session.ts'
import { workOnEach } from './turns.ts'

export interface DifferentialWork {
  images: DifferentialImage[]
  held: HeldRepository
  runFolder: string
}

export class DifferentialSession extends Session {
  readonly #work: DifferentialWork
  readonly #limits: MoveLimits

  constructor(id: string, work: DifferentialWork, limits: MoveLimits, log: Logger) {
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
    const { disksMax } = this.#limits
    await inOrder(images, (image) => image.hold(runFolder, signal))
    signal.throwIfAborted()
    await markAll(images)
    await workOnEach(images, disksMax, signal, (image, stop) =>
      explained(image, () => image.write(held.repository, stop)),
    )
    await inOrder(images, (image) => image.unmark())
  }

  protected async cleanUp(): Promise<void> {
    using _ = this.#work.held
    for (const image of this.#work.images) await image.release()
  }
}

/** All or none: nothing is written before all are marked. */
async function markAll(images: DifferentialImage[]): Promise<void> {
  try {
    await inOrder(images, (image) => image.mark())
  } catch (thrown) {
    // A mark that cannot be removed keeps backups from a whole image, and the next restore removes it.
    for (const image of images) await image.takeBackMark().catch(() => {})
    throw thrown
  }
}

async function inOrder(
  images: DifferentialImage[],
  step: (image: DifferentialImage) => Promise<void>,
): Promise<void> {
  for (const image of images) await explained(image, () => step(image))
}

async function explained(image: DifferentialImage, step: () => Promise<void>): Promise<void> {
  try {
    await step()
  } catch (thrown) {
    throw await image.explain(thrown)
  }
}
