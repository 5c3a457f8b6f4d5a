export { scenarios } from './scenarios.ts'
