/** Pseudo-random numbers from one printed seed: the same seed fails again. */
export class Random {
  readonly seed: number
  #state: number

  constructor(seed: number) {
    this.seed = seed
    this.#state = seed >>> 0
  }

  /** In [0, 1). Mulberry32, Tommy Ettinger, public domain algorithm. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  /** A whole number in [0, end). */
  below(end: number): number {
    return Math.floor(this.next() * end)
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T
  }

  /** `count` different numbers in [0, end), ascending. */
  sample(count: number, end: number): number[] {
    const chosen = new Set<number>()
    while (chosen.size < Math.min(count, end)) chosen.add(this.below(end))
    return [...chosen].sort((a, b) => a - b)
  }
}
