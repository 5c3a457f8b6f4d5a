// npm run scenario -- NAME: one scenario against a real installation, never cached.
import { mkdtemp, rm } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import type { Row, Scenario } from './row.ts'
import { scenarios } from './scenarios.ts'

const help = `Usage: npm run scenario -- NAME [--runs N] [--seed S] [--output table|json]

${scenarios.map(({ name, summary, runsFull }) => `  ${name.padEnd(14)} ${summary} (${runsFull} runs)`).join('\n')}

Each row says how often a case was run, in how many runs the fault took effect, and how
many failed. The same seed makes the same choices; timing stays the machine's own.
Exit codes: 0 no failure, 1 failures, 2 usage.`

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      runs: { type: 'string' },
      seed: { type: 'string' },
      output: { type: 'string', default: 'table' },
      help: { type: 'boolean', default: false },
    },
  })
  const scenario = scenarios.find(({ name }) => name === positionals[0])
  const runs = Number(values.runs ?? scenario?.runsFull)
  const seed = Number(values.seed ?? Date.now() % 1_000_000)
  if (values.help || !scenario || !Number.isInteger(runs) || !Number.isInteger(seed)) {
    console.error(help)
    return values.help ? 0 : 2
  }
  const rows = await runScenario(scenario, runs, seed)
  for (const row of rows) console.log(values.output === 'json' ? JSON.stringify(row) : textOf(row))
  return rows.some(({ failures }) => failures > 0) ? 1 : 0
}

async function runScenario(scenario: Scenario, runs: number, seed: number): Promise<Row[]> {
  console.error(`SEED=${seed}`)
  // Short, because unix sockets lie in it.
  const folder = await mkdtemp('/tmp/bf-sc-')
  try {
    return await scenario.run({ runs, seed, folder, tell: (text) => console.error(text) })
  } finally {
    if (process.env.BLOCKFERRY_KEEP_FOLDER) console.error(`kept ${folder}`)
    else await rm(folder, { recursive: true, force: true })
  }
}

function textOf(row: Row): string {
  const figures = Object.entries(row.figures ?? {}).map(([name, value]) => `${name} ${value}`)
  const counts = `${row.runs} runs, ${row.took_effect} took effect, ${row.failures} failures`
  return [`${row.scenario} / ${row.case}: ${counts}`, ...figures, ...(row.failed ?? [])].join(
    '\n  ',
  )
}

process.exit(await main())
