import { isReason, type Reason } from './reason.ts'

/**
 * A failure with a stable reason. The message says what was being done, to what, what
 * happened and what to do; every variable of it is in `metadata`, too.
 */
export class BackupError extends Error {
  readonly reason: Reason
  readonly metadata: Record<string, string>

  constructor(
    reason: Reason,
    message: string,
    metadata: Record<string, string> = {},
    options: ErrorOptions = {},
  ) {
    super(message, options)
    this.name = 'BackupError'
    this.reason = reason
    this.metadata = metadata
  }
}

/** An argument that cannot be used: names the field, its value and what to do. */
export function argumentInvalid(field: string, value: string, advice: string): BackupError {
  const shown = value.length > 80 ? `${value.slice(0, 77)}…` : value
  return new BackupError('ARGUMENT_INVALID', `${field} ${JSON.stringify(shown)}: ${advice}`, {
    field,
    value: shown,
  })
}

/** The failure behind anything thrown: native errors carry their reason in `code`. */
export function asBackupError(thrown: unknown): BackupError | null {
  if (thrown instanceof BackupError) return thrown
  if (thrown instanceof Error) {
    const { code, metadata } = thrown as { code?: unknown; metadata?: Record<string, string> }
    if (typeof code === 'string' && isReason(code)) {
      return new BackupError(code, thrown.message, metadata ?? {}, { cause: thrown })
    }
    if (thrown.name === 'AbortError') return new BackupError('CANCELLED', 'the work was cancelled')
  }
  return null
}
