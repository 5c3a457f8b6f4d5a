import { monotonicMs, newLog } from '@blockferry/core'
import { schedule } from '@blockferry/proto'
import { describe, expect, it } from 'vitest'
import { scheduleConfig } from './config.ts'
import { RunLeft } from './held_run.ts'
import { Holder } from './holder.ts'
import type { PolicyStore } from './policy_store.ts'
import { Kind, type RunRow, State } from './run_row.ts'
import type { RunStore } from './run_store.ts'
import type { Services } from './services.ts'

const { limits } = scheduleConfig({
  stateFolder: '/nowhere',
  databaseUrl: '',
  limits: { heartbeatMs: 20, leaseMs: 200 },
})

const row: RunRow = {
  ...{ id: 'r1', kind: Kind.BACKUP, state: State.QUEUED, vmIdentity: 'vm1', vmDisplayName: 'vm1' },
  ...{ host: '', repository: '', vmTaken: 'vm1', detail: schedule.Run.fromPartial({}) },
  ...{ pointIds: [], cancelRequested: false, tokenNumber: 1n, attemptCount: 1, version: 1n },
  ...{ createTime: new Date(0), startTime: null, endTime: null, point: null },
  plan: { repositoryFolder: '/repository', repositoryId: '' },
}

describe('a run', () => {
  it('is left when the database hangs for as long as the lease', async () => {
    const store = {
      claim: async () => [row],
      beat: () => new Promise(() => {}),
      giveBack: async () => {},
    }
    const left = Promise.withResolvers<unknown>()
    const listManifests = (_: unknown, { signal }: { signal: AbortSignal }) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          left.resolve(signal.reason)
          reject(signal.reason)
        })
      })
    const services = { move: { listManifests } } as unknown as Services
    const policies = {} as PolicyStore
    const means = { services, store: store as unknown as RunStore, policies }
    const holder = new Holder(means, limits, newLog('schedule', 'silent'))
    const beganMs = monotonicMs()
    await holder.claim()
    expect(await left.promise).toBeInstanceOf(RunLeft)
    expect(monotonicMs() - beganMs).toBeLessThan(1_000)
    await holder.stop()
  })
})
