import { describe, expect, it } from 'vitest'
import { formatBytes, formatDuration } from './units.ts'

describe('formatBytes', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1536, '1.5 KiB'],
    [1024 * 1024 - 1, '1.0 MiB'],
    [5_000_000_000_000n, '4.5 TiB'],
  ])('%s is %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text))
})

describe('formatDuration', () => {
  it.each([
    [12, '12 ms'],
    [850.4, '850 ms'],
    [59_960, '1 min 00 s'],
    [75_000, '1 min 15 s'],
    [7_500_000, '2 h 05 min'],
  ])('%s ms is %s', (ms, text) => expect(formatDuration(ms)).toBe(text))
})
