import type { Logger } from '@blockferry/core'
import { due } from './due.ts'
import { isSilence } from './patience.ts'
import { type PolicyRow, type PolicyStore, publicPolicy } from './policy_store.ts'
import type { Queue } from './queue.ts'
import type { ShownRow } from './run_row.ts'

/**
 * Queues the runs of policies that are due. The occasion's name makes that safe to repeat: any
 * number of processes may see the same policy due, or end between queueing and moving it on.
 */
export async function startDue(policies: PolicyStore, queue: Queue, log: Logger): Promise<void> {
  const { policies: repeating, nowMs } = await policies.repeating()
  for (const { name, dueMs, nextRunMs, starts } of due(repeating, nowMs)) {
    const policy = starts ? await policies.find(name) : null
    try {
      const runs = policy ? await queueAll(policy, queue, dueMs) : []
      log.info({ policy: name, runs: runs.map(({ id }) => id) }, 'policy is due')
    } catch (thrown) {
      // It stays due until it can be queued, and keeps no other policy from its turn.
      const level = isSilence(thrown) ? 'warn' : 'error'
      log[level]({ err: thrown, policy: name }, 'policy is due and waits')
      continue
    }
    await policies.moveOn(name, dueMs, nextRunMs)
  }
}

/** A backup of each VM, and then what its retention lets go. */
async function queueAll(policy: PolicyRow, queue: Queue, dueMs: number): Promise<ShownRow[]> {
  const runs = await queue.policy(policy, `due/${policy.name}/${dueMs}`)
  const retained = await queue.retainDue(publicPolicy(policy), `retain/${policy.name}/${dueMs}`)
  return retained ? [...runs, retained] : runs
}
