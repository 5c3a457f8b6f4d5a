import { within } from '@blockferry/core'
import type { GateHooks } from '@blockferry/testkit'

const reachMsMax = 60_000

interface Armed {
  method: string
  reached: PromiseWithResolvers<void>
  go: PromiseWithResolvers<void>
}

/** Holds one call between two services, so that something happens exactly before it. */
export class Hold {
  #armed: Armed | null = null

  readonly hooks: GateHooks = {
    before: async (method) => {
      const armed = this.#armed
      if (armed?.method !== method) return
      this.#armed = null
      armed.reached.resolve()
      await armed.go.promise
    },
  }

  /** Starts, does `work` when `method` is called next, then lets that call go on. */
  async at<T>(
    method: string,
    start: () => Promise<T>,
    work: (started: Promise<T>) => Promise<unknown>,
  ): Promise<T> {
    const armed: Armed = {
      method,
      reached: Promise.withResolvers<void>(),
      go: Promise.withResolvers<void>(),
    }
    this.#armed = armed
    try {
      const started = start()
      const reached = Promise.race([
        armed.reached.promise,
        started.then(() => armed.reached.promise),
      ])
      await within(reachMsMax, reached, () => new Error(`nobody called ${method}`))
      await work(started)
      armed.go.resolve()
      return await started
    } finally {
      this.#armed = null
      armed.go.resolve()
    }
  }
}
