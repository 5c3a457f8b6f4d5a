/** Results of everything that a run of the tests printed. */
export interface Counts {
  passed: number
  failed: number
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: colours are what is taken away.
const colours = /\u001b\[[0-9;]*m/g

const numbers = (text: string, pattern: RegExp): number[] =>
  [...text.matchAll(pattern)].map((match) => Number(match[1]))

const sum = (counts: number[]): number => counts.reduce((total, count) => total + count, 0)

/** Adds up what vitest, GoogleTest and tools/tidy/lint.sh say at their ends. */
export function countResults(output: string): Counts {
  const text = output.replaceAll(colours, '')
  const vitest = text.split('\n').filter((line) => /^\s*Tests\s/.test(line))
  const files = text.split('\n').filter((line) => /^\s*Test Files\s/.test(line))
  const passed = [
    ...numbers(vitest.join('\n'), /(\d+) passed/g),
    ...numbers(text, /^\[ {2}PASSED {2}\] (\d+) tests?\./gm),
    text.match(/^lint: .* passed$/gm)?.length ?? 0,
  ]
  // A file that does not even load fails as a file without a failed test.
  const failedTests = sum(numbers(vitest.join('\n'), /(\d+) failed/g))
  const failedFiles = sum(numbers(files.join('\n'), /(\d+) failed/g))
  const failed = [
    Math.max(failedTests, failedFiles),
    ...numbers(text, /^\[ {2}FAILED {2}\] (\d+) tests?, listed below/gm),
    text.match(/^lint: .* failed$/gm)?.length ?? 0,
  ]
  return { passed: sum(passed), failed: sum(failed) }
}
