// Exit codes are stable: scripts and monitoring depend on them (docs/cli.md).
import type { Reason } from '@blockferry/errors'
import { type backup, schedule } from '@blockferry/proto'

export const exitCode = {
  ok: 0,
  failed: 1,
  usage: 2,
  /** The run ended well, but disks of the VM are not part of the backup. */
  incomplete: 3,
  notFound: 4,
  busy: 5,
  unreachable: 6,
  cancelled: 130,
} as const

export type ExitCode = (typeof exitCode)[keyof typeof exitCode]

const ofReason: Partial<Record<Reason, ExitCode>> = {
  ARGUMENT_INVALID: exitCode.usage,
  CHANGED_BLOCKS_INVALID: exitCode.usage,
  ADDRESS_REFUSED: exitCode.usage,
  NOT_FOUND: exitCode.notFound,
  VM_NOT_FOUND: exitCode.notFound,
  DISK_NOT_FOUND: exitCode.notFound,
  IMAGE_MISSING: exitCode.notFound,
  BASE_MISSING: exitCode.notFound,
  REPOSITORY_MISSING: exitCode.notFound,
  BACKUP_NOT_FOUND: exitCode.notFound,
  POINT_NOT_FOUND: exitCode.notFound,
  SESSION_NOT_FOUND: exitCode.notFound,
  VM_BUSY: exitCode.busy,
  IMAGE_IN_USE: exitCode.busy,
  TARGET_IN_USE: exitCode.busy,
  DATABASE_BUSY: exitCode.busy,
  SERVICE_UNREACHABLE: exitCode.unreachable,
  DATABASE_UNREACHABLE: exitCode.unreachable,
  CANCELLED: exitCode.cancelled,
}

export const exitCodeOfReason = (reason: string): ExitCode =>
  ofReason[reason as Reason] ?? exitCode.failed

interface EndedRun {
  state: schedule.Run_State
  error?: schedule.RunError | undefined
  uncoveredDisks: backup.UncoveredDisk[]
}

/** What a run that has ended means for the shell. */
export function exitCodeOfRun(run: EndedRun): ExitCode {
  switch (run.state) {
    case schedule.Run_State.SUCCEEDED:
      return run.uncoveredDisks.length > 0 ? exitCode.incomplete : exitCode.ok
    case schedule.Run_State.CANCELLED:
      return exitCode.cancelled
    default:
      return exitCodeOfReason(run.error?.reason ?? '')
  }
}

/** The exit code of several runs: the first that is not 0, errors before left-out disks. */
export function worstOf(codes: ExitCode[]): ExitCode {
  const errors = codes.filter((code) => code !== exitCode.ok && code !== exitCode.incomplete)
  return errors[0] ?? (codes.includes(exitCode.incomplete) ? exitCode.incomplete : exitCode.ok)
}
