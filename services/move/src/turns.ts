// At most so many at once; the others wait in the order they came.

export class Turns {
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(countMax: number) {
    this.#free = countMax
  }

  /** Waits for a turn; disposing of it lets the next one go. Rejects with the signal's reason. */
  async take(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted()
    if (this.#free > 0) this.#free--
    else await this.#wait(signal)
    let taken = true
    return {
      [Symbol.dispose]: () => {
        if (taken) this.#giveOn()
        taken = false
      },
    }
  }

  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const go = () => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(go), 1)
        reject(signal.reason)
      }
      this.#waiting.push(go)
      signal.addEventListener('abort', leave, { once: true })
    })
  }

  #giveOn(): void {
    const next = this.#waiting.shift()
    if (next) next()
    else this.#free++
  }
}

/**
 * Works on all items, at most `countMax` at once. The first failure stops the others through their
 * signal; it is thrown when all have ended.
 */
export async function workOnEach<T>(
  items: readonly T[],
  countMax: number,
  signal: AbortSignal,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const stop = new AbortController()
  const either = AbortSignal.any([signal, stop.signal])
  const turns = new Turns(countMax)
  const workOn = async (item: T): Promise<void> => {
    try {
      using _ = await turns.take(either)
      await work(item, either)
    } catch (thrown) {
      stop.abort(thrown)
    }
  }
  await Promise.all(items.map(workOn))
  either.throwIfAborted()
}
