import { describe, expect, it } from 'vitest'
import { DataExtents } from './data_extents.ts'

const mib = 2 ** 20

describe('data extents', () => {
  it('joins what lies close together and keeps what does not', () => {
    const data = new DataExtents()
    for (const at of [0, 1, 3, 100]) data.add(at * mib, mib)
    expect(data.flat()).toEqual([0, 2 * mib, 3 * mib, mib, 100 * mib, mib])
  })

  it('never drops a block, however many there are', () => {
    const data = new DataExtents()
    for (let at = 0; at < 100_000; at++) data.add(at * 3 * mib, mib)
    const flat = data.flat()
    expect(flat.length / 2).toBeLessThanOrEqual(4_096)
    let run = 0
    for (let at = 0; at < 100_000; at++) {
      const [offset, end] = [at * 3 * mib, at * 3 * mib + mib]
      while ((flat[run] ?? 0) + (flat[run + 1] ?? 0) <= offset && run < flat.length) run += 2
      expect(offset >= (flat[run] ?? 0) && end <= (flat[run] ?? 0) + (flat[run + 1] ?? 0)).toBe(
        true,
      )
    }
  })
})
