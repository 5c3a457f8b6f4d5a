import { describe, expect, it } from 'vitest'
import { due, type Repeating } from './due.ts'
import { randomFrom, seedsToTry } from './seeded.ts'

const minute = 60_000
const seeds = seedsToTry(process.env.SEED)

/** What the service does on each tick. */
function play(policy: Repeating, clock: number[]): number[] {
  const started: number[] = []
  let current = policy
  for (const nowMs of clock) {
    for (const each of due([current], nowMs)) {
      if (each.starts) started.push(nowMs)
      current = { ...current, nextRunMs: each.nextRunMs }
    }
  }
  return started
}

describe('due', () => {
  it('keeps the rhythm however late the ticks are', () => {
    const policy = { name: 'p', repeatMs: 10 * minute, nextRunMs: 0 }
    const [first] = due([policy], 3 * minute)
    expect(first).toEqual({ name: 'p', dueMs: 0, nextRunMs: 10 * minute, starts: true })
  })

  it('starts once after a long downtime', () => {
    const policy = { name: 'p', repeatMs: minute, nextRunMs: 0 }
    const started = play(policy, [1_000 * minute, 1_000 * minute + 1, 1_000 * minute + 2])
    expect(started).toEqual([1_000 * minute])
  })

  it('starts nothing when the clock is set back, and goes on after one repeat', () => {
    const policy = { name: 'p', repeatMs: minute, nextRunMs: 1_000 * minute }
    expect(play(policy, [10, 20, 30])).toEqual([])
    expect(play(policy, [10, 10 + minute])).toEqual([10 + minute])
  })

  it.each(seeds)(
    'never starts twice within a repeat of a clock that only goes on (SEED=%i)',
    (seed) => {
      const random = randomFrom(seed)
      const repeatMs = minute + random(100 * minute)
      const phaseMs = random(repeatMs)
      let nowMs = random(10 * repeatMs)
      const clock = Array.from({ length: 200 }, () => {
        nowMs += random(10) === 0 ? random(20 * repeatMs) : random(repeatMs / 4)
        return nowMs
      })
      const started = play({ name: 'p', repeatMs, nextRunMs: phaseMs }, clock)
      const slots = started.map((atMs) => Math.floor((atMs - phaseMs) / repeatMs))
      expect(new Set(slots).size, `SEED=${seed}`).toBe(slots.length)
      const reached = new Set(
        clock
          .filter((atMs) => atMs >= phaseMs)
          .map((atMs) => Math.floor((atMs - phaseMs) / repeatMs)),
      )
      expect(slots, `SEED=${seed}`).toEqual([...reached])
    },
  )

  it.each(seeds)(
    'starts at most once per tick when the clock jumps both ways (SEED=%i)',
    (seed) => {
      const random = randomFrom(seed)
      const repeatMs = minute + random(60 * minute)
      let nowMs = 1_000_000 * minute
      const clock = Array.from({ length: 200 }, () => {
        nowMs += random(5) === 0 ? random(200 * repeatMs) - 100 * repeatMs : random(1_000)
        return nowMs
      })
      let policy = { name: 'p', repeatMs, nextRunMs: nowMs }
      for (const atMs of clock) {
        const found = due([policy], atMs)
        expect(found.length, `SEED=${seed}`).toBeLessThanOrEqual(1)
        if (found[0]) policy = { ...policy, nextRunMs: found[0].nextRunMs }
        expect(policy.nextRunMs, `SEED=${seed}`).toBeGreaterThan(atMs)
        expect(policy.nextRunMs, `SEED=${seed}`).toBeLessThanOrEqual(atMs + repeatMs)
      }
    },
  )
})
