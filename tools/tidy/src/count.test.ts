import { describe, expect, it } from 'vitest'
import { countResults } from './count.ts'

describe('countResults', () => {
  it('adds up vitest, GoogleTest and lint', () => {
    const output = [
      ' Test Files  1 passed (1)',
      '\u001b[2m      Tests \u001b[22m \u001b[1m\u001b[32m22 passed\u001b[39m (22)',
      '[==========] 31 tests from 4 test suites ran. (7 ms total)',
      '[  PASSED  ] 31 tests.',
      'lint: biome passed',
    ].join('\n')
    expect(countResults(output)).toEqual({ passed: 54, failed: 0 })
  })

  it('counts what failed, each once', () => {
    const output = [
      ' Test Files  1 failed | 2 passed (3)',
      '      Tests  2 failed | 22 passed | 1 skipped (25)',
      '[  PASSED  ] 29 tests.',
      '[  FAILED  ] 2 tests, listed below:',
      '[  FAILED  ] Crc32c.Empty',
      '[  FAILED  ] Crc32c.Zeroes',
      'lint: types failed',
    ].join('\n')
    expect(countResults(output)).toEqual({ passed: 51, failed: 5 })
  })

  it('counts a file that does not load', () => {
    const output = ' Test Files  1 failed (1)\n      Tests  no tests'
    expect(countResults(output)).toEqual({ passed: 0, failed: 1 })
  })
})
