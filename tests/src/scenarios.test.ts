import { randomInt } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { scenarios } from './scenarios.ts'

// Reduced counts; `npm run scenario -- NAME` runs the full ones.
describe('a real installation', () => {
  it.each(scenarios)('$name: $summary', { timeout: 400_000 }, async (scenario) => {
    const seed = randomInt(1_000_000)
    console.log(`SEED=${seed}`)
    const folder = await mkdtemp('/tmp/bf-sc-')
    try {
      const rows = await scenario.run({ runs: scenario.runsReduced, seed, folder, tell: () => {} })
      for (const row of rows) console.log(JSON.stringify(row))
      expect(rows.filter(({ failures }) => failures > 0)).toEqual([])
      expect(rows.some(({ took_effect }) => took_effect > 0)).toBe(true)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })
})
