// Times Blockferry beside its peers, through the peers harness, and holds the figures against the
// targets of the data path.
//
//   npm run bench -- CORPUS HARNESS [--runs N] [--tools "a b c"] [--output json]
//
// CORPUS is a folder that the harness's corpus program made; HARNESS the folder with peers.sh and
// bound-plugin.sh; the program `bound` is found through PATH or the variable BOUND. Prints a table, or
// with `--output json` one line: the harness's own result and `targets`.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

interface Step {
  wall: number
  cpu: number
  mb_s: number
  mb_per_cpu_s: number
  stored: number
}

interface Result {
  machine: Record<string, unknown>
  tools: { tool: string; verified: boolean; steps: Record<string, Step> }[]
}

interface Target {
  name: string
  figure: number | null
  target: string
  met: boolean | null
}

const usage = 'usage: npm run bench -- CORPUS HARNESS [--runs N] [--tools "a b c"] [--output json]'
const toolsDefault = 'nbdcopy qcow2 restic borg borgfix bound blockferry'

function runHarness(corpus: string, harness: string, runs: string, tools: string): Result {
  const folder = mkdtempSync(join(tmpdir(), 'blockferry-peers-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  const out = join(folder, 'result.json')
  const plugin = fileURLToPath(new URL('./peers-plugin.sh', import.meta.url))
  const { status } = spawnSync(
    'bash',
    [
      ...[join(harness, 'peers.sh'), '-s', '-r', runs, '-t', tools],
      ...['-p', join(harness, 'bound-plugin.sh'), '-p', plugin, corpus, out],
    ],
    // What the harness says about its progress; our own output is the result alone.
    { stdio: ['ignore', 2, 2] },
  )
  if (status !== 0) {
    console.error(`bench: ${join(harness, 'peers.sh')} ended with status ${status}; see above`)
    process.exit(1)
  }
  return JSON.parse(readFileSync(out, 'utf8'))
}

/** Figures of one run against each other: a tool that did not run leaves its target open. */
function targetsOf(result: Result): Target[] {
  const step = (tool: string, name: string) =>
    result.tools.find((one) => one.tool === tool)?.steps[name]
  const ratio = (a: number | undefined, b: number | undefined) => (a && b ? a / b : null)
  const ours = (name: string) => step('blockferry', name)
  const against = (name: string, tool: string) => ratio(ours(name)?.wall, step(tool, name)?.wall)
  const faster = (name: string, tool: string) => ratio(step(tool, name)?.wall, ours(name)?.wall)
  const atMost = (name: string, figure: number | null, limit: number): Target => ({
    ...{ name, figure, target: `<= ${limit}`, met: figure === null ? null : figure <= limit },
  })
  const atLeast = (name: string, figure: number | null, limit: number): Target => ({
    ...{ name, figure, target: `>= ${limit}`, met: figure === null ? null : figure >= limit },
  })
  return [
    atMost('T1 full, wall / bound', against('full', 'bound'), 1.0),
    atLeast('T1 full, times borgfix', faster('full', 'borgfix'), 3),
    atLeast('T1 full, times restic', faster('full', 'restic'), 15),
    atLeast('T1 full, MB per CPU s', ours('full')?.mb_per_cpu_s ?? null, 400),
    atLeast('T2 clone, rate / own full', ratio(ours('clone')?.mb_s, ours('full')?.mb_s), 1.3),
    atMost(
      'T2 clone, stored / bound',
      ratio(ours('clone')?.stored, step('bound', 'clone')?.stored),
      1.0,
    ),
    atMost('T3 incremental, wall / bound', against('incr', 'bound'), 0.7),
    atLeast('T3 incremental, times borgfix', faster('incr', 'borgfix'), 3),
    atMost('T6 restore, wall / bound', against('restore', 'bound'), 1.2),
    atLeast('T6 restore, times borgfix', faster('restore', 'borgfix'), 10),
    atMost('T6 restore, wall / nbdcopy', against('restore', 'nbdcopy'), 1.0),
  ]
}

function print(result: Result, targets: Target[]): void {
  for (const { tool, verified, steps } of result.tools) {
    const walls = Object.entries(steps).map(([name, { wall }]) => `${name} ${wall.toFixed(2)} s`)
    console.log(`${tool.padEnd(11)} ${walls.join('  ')}  ${verified ? 'verified' : 'NOT VERIFIED'}`)
  }
  for (const { name, figure, target, met } of targets) {
    const word = met === null ? 'open' : met ? 'met' : 'missed'
    console.log(
      `${name.padEnd(32)} ${(figure?.toFixed(2) ?? '-').padStart(8)} ${target.padEnd(8)} ${word}`,
    )
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: '3' },
    tools: { type: 'string', default: toolsDefault },
    output: { type: 'string', default: 'text' },
  },
})
const [corpus, harness] = positionals
if (!corpus || !harness || positionals.length > 2 || !['text', 'json'].includes(values.output)) {
  console.error(usage)
  process.exit(2)
}
const result = runHarness(corpus, harness, values.runs, values.tools)
const targets = targetsOf(result)
if (values.output === 'json') console.log(JSON.stringify({ ...result, targets }))
else print(result, targets)
process.exitCode = result.tools.every(({ verified }) => verified) ? 0 : 1
