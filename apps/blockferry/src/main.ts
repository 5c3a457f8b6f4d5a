import { processEnvironment } from './config.ts'
import { runProgram } from './program.ts'
import { processTerminal } from './terminal.ts'

// `blockferry backups | head` closes our output early: that is not a failure.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit()
  })
}

const env = processEnvironment()
// A service that hangs on stopping must not keep the process.
process.exit(await runProgram(process.argv.slice(2), processTerminal(env), env))
