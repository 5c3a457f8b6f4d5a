import { asBackupError, BackupError } from '@blockferry/errors'
import type { OutputFormat } from './config.ts'
import { type ExitCode, exitCode, exitCodeOfReason } from './exit_code.ts'
import { jsonLine } from './json.ts'
import { safeLines } from './safe_text.ts'
import type { Terminal } from './terminal.ts'

/** Where to look next, for reasons that a user can do something about with this program. */
const hints: Record<string, string> = {
  SERVICE_UNREACHABLE:
    'start the services with `blockferry up`, or name where they are with --state or --endpoint-…; `blockferry doctor` looks for what is missing',
  DATABASE_UNREACHABLE: '`blockferry doctor` looks for what is missing',
  VM_NOT_FOUND: '`blockferry vms` lists what the hosts report',
  VM_AMBIGUOUS: '`blockferry vms` lists the identities',
  VM_BUSY: '`blockferry runs --active` lists what is under way',
  BACKUP_NOT_FOUND: '`blockferry backups` lists what there is',
  BASE_MISSING: '`blockferry backups` lists what there is',
  RESTORE_INCOMPLETE:
    '`blockferry restore BACKUP --in-place --differential --yes` finishes it, with the backup that is named',
  HOST_UNREACHABLE: '`blockferry host list` shows how it is reached',
}

interface Failure {
  reason: string
  message: string
  metadata: Record<string, string>
}

/** Prints a failure to standard error and says how the process is to end. */
export function printFailure(terminal: Terminal, output: OutputFormat, failure: Failure): ExitCode {
  const { reason, message, metadata } = failure
  if (output === 'json') {
    terminal.err(`${jsonLine({ error: { reason, message, metadata } })}\n`)
  } else {
    const hint = hints[reason]
    const lines = [`blockferry: ${safeLines(message)}`, `  reason: ${reason}`]
    if (hint) lines.push(`  try: ${hint}`)
    terminal.err(`${lines.join('\n')}\n`)
  }
  return exitCodeOfReason(reason)
}

/** Any thrown value as a failure; what is not one of ours is a defect and keeps its text. */
export function printThrown(terminal: Terminal, output: OutputFormat, thrown: unknown): ExitCode {
  const known = asBackupError(thrown)
  if (known) return printFailure(terminal, output, known)
  const text = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)
  printFailure(terminal, output, { reason: 'INTERNAL', message: text, metadata: {} })
  return exitCode.failed
}

/** A command line that cannot be carried out as it is. */
export const usageError = (message: string, metadata: Record<string, string> = {}): BackupError =>
  new BackupError('ARGUMENT_INVALID', message, metadata)
