export { type Environment, type Settings, settingsOf } from './config.ts'
export { runProgram } from './program.ts'
export type { Terminal } from './terminal.ts'
export { type Running, startAll } from './up.ts'
