// Runs every test and check of the workspace and closes with `N passed, N failed`, which CI reads.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { countResults } from './count.ts'

const nx = spawn(
  'nx',
  ['run-many', '-t', 'test', 'lint', '--output-style=static', ...process.argv.slice(2)],
  { stdio: ['ignore', 'pipe', 'inherit'] },
)
const output: Buffer[] = []
nx.stdout.on('data', (data: Buffer) => {
  output.push(data)
  process.stdout.write(data)
})
const [status] = await once(nx, 'close')

const counts = countResults(Buffer.concat(output).toString())
// A task can fail outside of any test, and a run without tests proves nothing.
if ((status !== 0 && counts.failed === 0) || counts.passed === 0) counts.failed++
console.log(`${counts.passed} passed, ${counts.failed} failed`)
process.exitCode = counts.failed === 0 ? 0 : 1
