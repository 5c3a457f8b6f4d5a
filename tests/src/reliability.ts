// npm run reliability: how often we tried to break the repository, and what came of it. Writes the
// table to docs/reliability.md with --full.
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type ModelName, type Outcome, runModel } from './models.ts'
import { BuggyCopy, plantedBugs } from './planted_bugs.ts'
import type { Row } from './row.ts'

const help = `Usage: npm run reliability -- [--full] [--seed S] [--output table|json]

Runs the models of the repository against the shipped code: crashes and failing calls of the whole
line, writers against collectors and clocks, each stopped or failing at every call, processes killed
for real, a month of many disks, damage of every kind of file; then plants bugs and looks whether
the models find them. --full takes about 40 minutes on two cores and writes docs/reliability.md. Exit codes: 0 no failure, 1 failures, 2 usage.`

interface Trial {
  model: ModelName
  case: string
  reduced: number
  full: number
  /** The counts say which share of all calls is tried: every so manieth. */
  isStride?: true
  /** Runs of the row and those in which a fault took effect, from what the model counts. */
  tally: (counts: Record<string, number>, count: number) => { runs: number; took_effect: number }
}

const trials: Trial[] = [
  {
    model: 'damage',
    case: 'flipped bits, 4 KiB of zeroes, cuts, in every kind of file',
    reduced: 600,
    full: 12_000,
    tally: (counts) => {
      const runs = sum(counts, ['bits', 'zeroes', 'cuts'])
      return { runs, took_effect: runs }
    },
  },
  {
    model: 'line',
    case: 'crash states, and calls that fail with ENOSPC or EIO',
    reduced: 60,
    full: 1_500,
    tally: (counts, worlds) => ({
      runs: worlds * stepsOfAWorld,
      took_effect: sum(counts, ['crashes', 'failures']),
    }),
  },
  {
    model: 'collection',
    case: 'writers, collectors, administrators and clocks, call by call',
    reduced: 400,
    full: 100_000,
    tally: (counts) => ({
      runs: counts.histories ?? 0,
      took_effect: sum(counts, ['killed', 'crashes']),
    }),
  },
  {
    model: 'stop',
    case: 'stopped before each call of a backup, a collection, a removal, the other side running on',
    reduced: 40,
    full: 2,
    isStride: true,
    tally: ({ stops = 0 }) => ({ runs: stops, took_effect: stops }),
  },
  {
    model: 'failure',
    case: 'call 1 to 2,000 fails with ENOSPC, and with EIO',
    reduced: 40,
    full: 2,
    isStride: true,
    tally: ({ calls = 0, failed = 0 }) => ({ runs: calls, took_effect: failed }),
  },
  {
    model: 'kill',
    case: 'kill -9 of a process that backs up, removes, collects and merges its index',
    reduced: 60,
    full: 2_000,
    tally: (counts) => ({
      runs: counts.kills ?? 0,
      took_effect: sum(counts, ['in a backup', 'in a removal', 'in a collection']),
    }),
  },
  {
    model: 'month',
    case: '30 days of 50 disks, twice: changed, resized, removed and collected every day; restored',
    reduced: 6,
    full: 100,
    tally: ({ backups = 0, restored = 0 }) => ({ runs: backups, took_effect: restored }),
  },
]

/** As in the model of the line. */
const stepsOfAWorld = 40
const bugCounts: Record<ModelName, number> = {
  line: 40,
  collection: 2_000,
  damage: 400,
  stop: 7,
  failure: 11,
  kill: 200,
  month: 3,
}

const root = fileURLToPath(new URL('../..', import.meta.url))
const shipped = join(root, 'native', 'out', 'core_test')

const sum = (counts: Record<string, number>, names: string[]): number =>
  names.reduce((total, name) => total + (counts[name] ?? 0), 0)

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      full: { type: 'boolean', default: false },
      seed: { type: 'string' },
      output: { type: 'string', default: 'table' },
      help: { type: 'boolean', default: false },
    },
  })
  const seed = Number(values.seed ?? Date.now() % 1_000_000)
  if (values.help || !Number.isInteger(seed) || !['table', 'json'].includes(values.output)) {
    console.error(help)
    return values.help ? 0 : 2
  }
  const rows: Row[] = []
  const tell = (row: Row): void => {
    rows.push(row)
    console.log(values.output === 'json' ? JSON.stringify(row) : lineOf(row))
  }
  for (const trial of trials) tell(await tryOut(trial, values.full, seed))
  tell(await findBugs(seed))
  if (values.full) await writeFile(join(root, 'docs', 'reliability.md'), pageOf(rows, seed))
  return rows.some(({ failures }) => failures > 0) ? 1 : 0
}

/** On two processes side by side, with seeds of their own. */
async function tryOut(trial: Trial, full: boolean, seed: number): Promise<Row> {
  const given = full ? trial.full : trial.reduced
  const count = trial.isStride ? given : Math.ceil(given / 2)
  const begunMs = performance.now()
  const halves = await Promise.all(
    // Odd, so that with a stride of two the halves are the whole.
    [seed, seed + 500_000_001].map((from) => runModel(shipped, trial.model, count, from)),
  )
  const counts: Record<string, number> = {}
  for (const half of halves) {
    for (const [name, value] of Object.entries(half.counts)) {
      counts[name] = (counts[name] ?? 0) + value
    }
  }
  const failed = halves.filter(({ passed }) => !passed)
  return {
    scenario: 'reliability',
    case: trial.case,
    ...trial.tally(counts, 2 * count),
    failures: failed.length,
    seed,
    failed: failed.map(({ text }) => text.slice(-2_000)),
    figures: { ...counts, seconds: secondsSince(begunMs) },
  }
}

async function findBugs(seed: number): Promise<Row> {
  const folder = await mkdtemp(join(tmpdir(), 'bf-bugs-'))
  const begunMs = performance.now()
  const missed: string[] = []
  try {
    const copy = await BuggyCopy.make(folder)
    for (const bug of plantedBugs) {
      const { program, remove } = await copy.plant(bug)
      const outcome: Outcome = await runModel(program, bug.model, bugCounts[bug.model], seed)
      if (outcome.passed) missed.push(`not found: ${bug.what}`)
      console.error(`${outcome.passed ? 'MISSED' : 'found'}: ${bug.what}`)
      await remove()
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  const found = plantedBugs.length - missed.length
  return {
    scenario: 'reliability',
    case: 'planted bugs that a model finds',
    runs: plantedBugs.length,
    took_effect: found,
    failures: missed.length,
    seed,
    failed: missed,
    figures: { found, seconds: secondsSince(begunMs) },
  }
}

const secondsSince = (begunMs: number): number => Math.round((performance.now() - begunMs) / 1000)

function lineOf(row: Row): string {
  const figures = Object.entries(row.figures ?? {}).map(([name, value]) => `${name} ${value}`)
  const counts = `${row.runs} runs, ${row.took_effect} took effect, ${row.failures} failures`
  return [`${row.case}: ${counts}`, figures.join(', '), ...(row.failed ?? [])].join('\n  ')
}

const commit = (): string =>
  execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim()

function pageOf(rows: Row[], seed: number): string {
  const lines = rows.map(({ case: what, runs, took_effect, failures, figures }) => {
    const told = Object.entries(figures ?? {}).map(([name, value]) => `${name} ${value}`)
    return `| ${what} | ${runs} | ${took_effect} | ${failures} | ${told.join(', ')} |`
  })
  return `# How often we tried to break the repository

Written by \`npm run reliability -- --full --seed ${seed}\` on ${new Date().toISOString().slice(0, 10)}, commit ${commit()}, load ${loadavg()[0]?.toFixed(1)}. The models run the shipped C++ code of commit,
collection, index and restore over a file system in memory, those of kills and of the month over a real one; what they do is in their sources,
\`native/src/*/*_model_test.cc\`, and in [testing](testing.md). A fault *took effect* when the call it was planned for came.

| what | runs | took effect | failures | counts |
|---|---:|---:|---:|---|
${lines.join('\n')}

Planted bugs:

${plantedBugs.map(({ what, model }) => `- ${what} (found by the model of ${model})`).join('\n')}
`
}

process.exit(await main())
