/** What one case of a scenario found; one line of JSON. */
export interface Row {
  scenario: string
  case: string
  /** How often it was tried. */
  runs: number
  /** In how many of them the fault really happened. */
  took_effect: number
  failures: number
  seed: number
  /** Measured values, named with their units. */
  figures?: Record<string, number | string>
  /** What failed, in words. */
  failed?: string[]
}

export interface ScenarioOptions {
  runs: number
  seed: number
  /** An empty folder with a short path; removed by the caller. */
  folder: string
  tell: (text: string) => void
}

export interface Scenario {
  name: string
  /** One line for --help. */
  summary: string
  /** Runs of the full count, and of the one that `npm test` makes. */
  runsFull: number
  runsReduced: number
  run: (options: ScenarioOptions) => Promise<Row[]>
}

/** Counts tries of one case. */
export class Tally {
  #row: Row
  #failed: string[] = []

  constructor(scenario: string, name: string, seed: number) {
    this.#row = { scenario, case: name, runs: 0, took_effect: 0, failures: 0, seed }
  }

  /** One try: `work` throws when it failed and tells whether the fault took effect. */
  async try(what: string, work: () => Promise<boolean>): Promise<void> {
    this.#row.runs++
    try {
      if (await work()) this.#row.took_effect++
    } catch (thrown) {
      this.#row.failures++
      this.#failed.push(`${what}: ${(thrown as Error).message}`)
    }
  }

  row(figures?: Record<string, number | string>): Row {
    return {
      ...this.#row,
      ...(figures ? { figures } : {}),
      ...(this.#failed.length > 0 ? { failed: this.#failed } : {}),
    }
  }
}

/** Throws with `text` unless `holds`. */
export function check(holds: boolean, text: string): asserts holds {
  if (!holds) throw new Error(text)
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[sorted.length >> 1] ?? 0
}
