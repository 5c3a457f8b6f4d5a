// The guard's process. Its first line of standard input is the task; until it
// comes, the end of the input ends the process, and afterwards nothing does but
// the end of the task.
import { createInterface } from 'node:readline'
import { type HoldJob, type HoldReport, hold, undoHold } from './hold.ts'

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGPIPE'] as const) {
  process.on(signal, () => {})
}
// The reader may be gone; the guest is let go on all the same.
process.stdout.on('error', () => {})

const report = (line: HoldReport) => {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

let task: { kind: 'hold' | 'undo'; job: HoldJob } | null = null
for await (const line of createInterface({ input: process.stdin })) {
  task = JSON.parse(line)
  break
}
if (task) await (task.kind === 'hold' ? hold : undoHold)(task.job, report)
process.exit(0)
