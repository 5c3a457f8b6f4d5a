// The native models, which are tests of core_test: how often they are run is told by a variable, and
// what they met by their last line.
import { execFile } from 'node:child_process'

export type ModelName = 'line' | 'collection' | 'damage' | 'stop' | 'failure' | 'kill' | 'month'

interface Model {
  filter: string
  /** Says how many, or which share of all calls (STRIDE); see the source of the model. */
  variable: string
}

export const models: Record<ModelName, Model> = {
  line: { filter: 'LineModel.*', variable: 'WORLDS' },
  collection: { filter: 'CollectionModel.*', variable: 'HISTORIES' },
  damage: { filter: 'DamageModel.*', variable: 'DAMAGES' },
  stop: { filter: 'StopModel.*', variable: 'STRIDE' },
  failure: { filter: 'FailureModel.*', variable: 'STRIDE' },
  kill: { filter: 'KillModel.*', variable: 'KILLS' },
  month: { filter: 'MonthModel.*', variable: 'DISKS' },
}

export interface Outcome {
  passed: boolean
  /** What the last line counts. */
  counts: Record<string, number>
  /** All it said. */
  text: string
}

/** Runs a model of the program `count` times from `seed` on. */
export function runModel(
  program: string,
  name: ModelName,
  count: number,
  seed: number,
): Promise<Outcome> {
  const { filter, variable } = models[name]
  const env = { ...process.env, SEED: String(seed), [variable]: String(count) }
  return new Promise((resolve) => {
    execFile(
      program,
      [`--gtest_filter=${filter}`],
      { env, maxBuffer: 64 * 1024 * 1024 },
      (error, stdout) =>
        resolve({ passed: error === null, counts: countsOf(stdout), text: stdout }),
    )
  })
}

/** `commits: 12, killed: 3` */
function countsOf(text: string): Record<string, number> {
  const line = text.split('\n').findLast((each) => /^[a-z ]+: \d+, [a-z ]+: \d+/.test(each)) ?? ''
  return Object.fromEntries(
    [...line.matchAll(/([a-z ]+?): (\d+)/g)].map(([, name = '', count]) => [
      name.trim(),
      Number(count),
    ]),
  )
}
