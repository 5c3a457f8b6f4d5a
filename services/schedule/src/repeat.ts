import type { Logger } from '@blockferry/core'
import { due } from './due.ts'
import { isSilence } from './patience.ts'
import type { PolicyStore } from './policy_store.ts'
import type { Queue } from './queue.ts'

/**
 * Queues the runs of policies that are due. The occasion's name makes that safe to repeat: any
 * number of processes may see the same policy due, or end between queueing and moving it on.
 */
export async function startDue(policies: PolicyStore, queue: Queue, log: Logger): Promise<void> {
  const { policies: repeating, nowMs } = await policies.repeating()
  for (const { name, dueMs, nextRunMs, starts } of due(repeating, nowMs)) {
    const policy = starts ? await policies.find(name) : null
    try {
      const runs = policy ? await queue.policy(policy, `due/${name}/${dueMs}`) : []
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
