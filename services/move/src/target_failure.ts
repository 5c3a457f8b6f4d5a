import { BackupError, type Reason } from '@blockferry/errors'

const verdicts: Record<string, { reason: Reason; advice: string }> = {
  EEXIST: { reason: 'TARGET_EXISTS', advice: 'remove it or name another place' },
  ENOSPC: { reason: 'TARGET_FULL', advice: 'free space or name a place with more room' },
  EDQUOT: { reason: 'TARGET_FULL', advice: 'free space or name a place with more room' },
  EFBIG: { reason: 'TARGET_FULL', advice: 'name a file system that takes files of that size' },
  EACCES: { reason: 'TARGET_DENIED', advice: 'let this user write there or name another place' },
  EPERM: { reason: 'TARGET_DENIED', advice: 'let this user write there or name another place' },
  EROFS: { reason: 'TARGET_DENIED', advice: 'name a place that can be written' },
  ENAMETOOLONG: { reason: 'TARGET_WRITE_FAILED', advice: 'choose a shorter name' },
}

/** A failed file call at the place that is restored to. */
export function targetFailure(doing: string, path: string, thrown: unknown): unknown {
  if (thrown instanceof BackupError || !(thrown instanceof Error)) return thrown
  const { code } = thrown as NodeJS.ErrnoException
  if (code === undefined) return thrown
  const { reason, advice } = verdicts[code] ?? {
    reason: 'TARGET_WRITE_FAILED' as const,
    advice: 'check the storage and restore again',
  }
  return new BackupError(reason, `${doing} ${path}: ${code}; ${advice}`, { target: path, code })
}

/** Runs file calls; what fails is a failure of the target. */
export async function atTarget<T>(doing: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (thrown) {
    throw targetFailure(doing, path, thrown)
  }
}
