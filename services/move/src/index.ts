export { type MoveConfig, type MoveSettings, moveConfig } from './config.ts'
export { startMove } from './main.ts'
