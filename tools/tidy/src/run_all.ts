// Runs every test and check of the workspace and closes with `N passed, N failed`, which CI reads.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { countResults } from './count.ts'

// What the compiler does comes first: beside it, tests that wait for a real guest wait too long.
// Its results are in nx's cache then, and are printed and counted with the others.
const steps = [
  ['compile', 'test-sanitized'],
  ['test', 'lint'],
]

let output = ''
let status: number | null = 0
for (const targets of steps) [output, status] = await runTargets(targets)

const counts = countResults(output)
// A task can fail outside of any test, and a run without tests proves nothing.
if ((status !== 0 && counts.failed === 0) || counts.passed === 0) counts.failed++
console.log(`${counts.passed} passed, ${counts.failed} failed`)
process.exitCode = counts.failed === 0 ? 0 : 1

async function runTargets(targets: string[]): Promise<[string, number | null]> {
  const nx = spawn(
    'nx',
    ['run-many', '-t', ...targets, '--output-style=static', ...process.argv.slice(2)],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const parts: Buffer[] = []
  nx.stdout.on('data', (data: Buffer) => {
    parts.push(data)
    process.stdout.write(data)
  })
  const [status] = await once(nx, 'close')
  return [Buffer.concat(parts).toString(), status]
}
