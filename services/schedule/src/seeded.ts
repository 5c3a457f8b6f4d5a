// Randomness for tests from one seed: the same seed fails again. `SEED=…` replays one.
import { randomBytes } from 'node:crypto'

/** Seeds to try: fresh ones, or the one that is to be replayed. */
export function seedsToTry(replayed: string | undefined, count = 50): number[] {
  if (replayed) return [Number(replayed)]
  return Array.from({ length: count }, () => randomBytes(4).readUInt32LE())
}

/** Draws whole numbers from 0 up to what is asked, without it. */
export function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}
