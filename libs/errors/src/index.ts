export * from './backup_error.ts'
export { failureOf, type StatusObject, statusOf } from './grpc.ts'
export { type Decision, decisions, isReason, type Reason } from './reason.ts'
