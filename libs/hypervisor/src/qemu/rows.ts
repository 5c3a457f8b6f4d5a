/** Work on things with a name, one after the other for each name. */
export class Rows {
  #rows = new Map<string, Promise<void>>()

  /** Runs `work` after all earlier work on `name`, whether that succeeded or not. */
  async alone<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.#rows.get(name) ?? Promise.resolve()
    const mine = before.then(work)
    const row = mine.then(
      () => {},
      () => {},
    )
    this.#rows.set(name, row)
    try {
      return await mine
    } finally {
      if (this.#rows.get(name) === row) this.#rows.delete(name)
    }
  }

  /** True while work on `name` runs or waits. */
  isHeld(name: string): boolean {
    return this.#rows.has(name)
  }
}
