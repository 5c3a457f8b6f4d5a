// Which runs that wait may start now. Pure: the same rows give the same answer in every process.
import { Kind } from './run_row.ts'

export interface Waiting {
  runId: string
  /** Empty: limits nothing. */
  host: string
  repository: string
  /** The VM whose disks the run reads or replaces; null when it touches none. */
  vmTaken: string | null
  kind: Kind
  /** `policies/{policy}` that queued it; empty: none did. */
  policy: string
  createTimeMs: number
}

export interface AdmitLimits {
  runsMax: number
  runsPerHostMax: number
  runsPerRepositoryMax: number
}

/**
 * Ids of the waiting runs that may join the working ones, in the order they wait. A run that must
 * wait for its host or repository holds up only those that need the same.
 */
export function admit(
  waiting: readonly Waiting[],
  working: readonly Waiting[],
  limits: AdmitLimits,
): string[] {
  const joined = [...working]
  const admitted: string[] = []
  for (const run of waiting) {
    if (joined.length >= limits.runsMax) break
    if (!fits(run, joined, limits) || countsOn(run, waiting) || countsOn(run, working)) continue
    joined.push(run)
    admitted.push(run.runId)
  }
  return admitted
}

function fits(run: Waiting, joined: readonly Waiting[], limits: AdmitLimits): boolean {
  const sameHost = run.host === '' ? 0 : joined.filter(({ host }) => host === run.host).length
  const sameRepository = joined.filter(({ repository }) => repository === run.repository).length
  const sameVm = run.vmTaken !== null && joined.some(({ vmTaken }) => vmTaken === run.vmTaken)
  return !sameVm && sameHost < limits.runsPerHostMax && sameRepository < limits.runsPerRepositoryMax
}

/** A retention comes after the backups that its policy made before it: it may keep those. */
function countsOn(run: Waiting, others: readonly Waiting[]): boolean {
  if (run.kind !== Kind.RETAIN) return false
  return others.some(
    ({ kind, policy, createTimeMs }) =>
      kind === Kind.BACKUP && policy === run.policy && createTimeMs <= run.createTimeMs,
  )
}
