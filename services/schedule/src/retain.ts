import { BackupError } from '@blockferry/errors'
import { retention, type schedule } from '@blockferry/proto'
import type { HeldRun } from './held_run.ts'
import { hasReason, patiently } from './patience.ts'
import { publicPolicy } from './policy_store.ts'
import { planPage } from './retention_plan.ts'
import type { Means } from './run.ts'
import { State } from './run_row.ts'

const pageSize = 500
const { REMOVE, KEEP } = retention.RetentionDecision_Verdict

/**
 * Removes the backups that the policy's retention lets go, as it is now: it may have been changed, or
 * the policy deleted, while the run waited. The whole plan is made before anything is removed;
 * repeated after a crash it finds less to remove.
 */
export async function runRetain(
  run: HeldRun,
  { services, policies }: Means,
  signal: AbortSignal,
): Promise<void> {
  const planned = run.plan.retain
  if (!planned) throw new Error(`run ${run.id} retains nothing`)
  const row = await policies.find(planned.name.replace('policies/', ''))
  if (!row || (!row.retention && row.vmRetentions.length === 0)) return
  const policy = publicPolicy(row)
  const { catalog } = services
  const { recordMs, retryPauseMs } = run.limits
  const patience = { silentMs: recordMs, pauseMs: retryPauseMs, signal }
  await run.enter(State.MOVING)
  const decisions: retention.RetentionDecision[] = []
  let pageToken = ''
  do {
    const request = { name: policy.name, vm: '', pageSize, pageToken }
    const page = await patiently(() => planPage(policy, request, catalog, signal), patience)
    decisions.push(...page.decisions)
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  refuseToLeaveBare(decisions)
  for (const { backup: name, verdict } of decisions) {
    if (verdict !== REMOVE) continue
    signal.throwIfAborted()
    try {
      await patiently(() => catalog.removeBackup({ name }, { signal }), patience)
    } catch (thrown) {
      // Somebody held, locked or lost it since it was decided.
      const stays = ['BACKUP_HELD', 'BACKUP_LOCKED', 'BACKUP_NOT_FOUND'] as const
      if (!stays.some((reason) => hasReason(thrown, reason))) throw thrown
      run.log.warn({ err: thrown, backup: name }, 'not removed')
      continue
    }
    await run.show({ removedBackups: [...run.row.detail.removedBackups, name] })
  }
}

/** No rule may take the last backup of a VM: something is broken then, and nothing is removed. */
function refuseToLeaveBare(decisions: retention.RetentionDecision[]): void {
  const kept = new Set(
    decisions.flatMap(({ verdict, vmIdentity }) => (verdict === KEEP ? [vmIdentity] : [])),
  )
  const bare = decisions.find(({ vmIdentity }) => !kept.has(vmIdentity))
  if (!bare) return
  throw new BackupError(
    'INTERNAL',
    `apply the retention: it would remove all backups of VM ${bare.vmDisplayName}; nothing was removed, report it as a defect`,
    { vm: bare.vmIdentity },
  )
}

/** What of a policy a retention needs. */
export type RetainedPolicy = Pick<
  schedule.Policy,
  'name' | 'repository' | 'vms' | 'retention' | 'vmRetentions'
>
