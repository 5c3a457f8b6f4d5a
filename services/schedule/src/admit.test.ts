import { describe, expect, it } from 'vitest'
import { type AdmitLimits, admit, type Waiting } from './admit.ts'
import { Kind } from './run_row.ts'
import { randomFrom, seedsToTry } from './seeded.ts'

const seeds = seedsToTry(process.env.SEED)
const limits: AdmitLimits = { runsMax: 8, runsPerHostMax: 2, runsPerRepositoryMax: 4 }

const run = (runId: string, given: Partial<Waiting> = {}): Waiting => ({
  runId,
  host: `hosts/${runId}`,
  repository: `repositories/${runId}`,
  vmTaken: null,
  kind: Kind.BACKUP,
  policy: '',
  createTimeMs: 0,
  ...given,
})

const count = (runs: Waiting[], same: (run: Waiting) => boolean) => runs.filter(same).length

function breaks(runs: Waiting[], { runsMax, runsPerHostMax, runsPerRepositoryMax }: AdmitLimits) {
  return (
    runs.length > runsMax ||
    runs.some(
      ({ host, repository, vmTaken }) =>
        (host !== '' && count(runs, (other) => other.host === host) > runsPerHostMax) ||
        count(runs, (other) => other.repository === repository) > runsPerRepositoryMax ||
        (vmTaken !== null && count(runs, (other) => other.vmTaken === vmTaken) > 1),
    )
  )
}

describe('admit', () => {
  it('lets a run of an idle host pass those that wait for a busy one', () => {
    const busy = ['a', 'b', 'c'].map((id) => run(id, { host: 'hosts/h' }))
    expect(admit([...busy, run('d')], [], limits)).toEqual(['a', 'b', 'd'])
  })

  it('lets a retention wait for the backups that its policy made before it, and for no others', () => {
    const policy = 'policies/p'
    const retention = run('r', { kind: Kind.RETAIN, policy, createTimeMs: 5 })
    const before = run('a', { policy, createTimeMs: 4 })
    expect(admit([before, retention], [], limits)).toEqual(['a'])
    expect(admit([retention], [before], limits)).toEqual([])
    const others = [run('b', { policy, createTimeMs: 6 }), run('c', { createTimeMs: 4 })]
    expect(admit([retention], others, limits)).toEqual(['r'])
    expect(admit([retention, ...others], [], limits)).toEqual(['r', 'b', 'c'])
  })

  it('keeps two runs of one VM apart', () => {
    const twice = ['a', 'b'].map((id) => run(id, { vmTaken: 'vm' }))
    expect(admit(twice, [], limits)).toEqual(['a'])
    expect(admit(twice.slice(1), twice.slice(0, 1), limits)).toEqual([])
  })

  it.each(seeds)(
    'breaks no limit, leaves nobody out who fits, and keeps the order (SEED=%i)',
    (seed) => {
      const random = randomFrom(seed)
      const some: AdmitLimits = {
        runsMax: 1 + random(12),
        runsPerHostMax: 1 + random(4),
        runsPerRepositoryMax: 1 + random(5),
      }
      const all = Array.from({ length: 40 }, (_, index) =>
        run(`r${index}`, {
          host: random(5) === 0 ? '' : `hosts/${random(5)}`,
          repository: `repositories/${random(4)}`,
          vmTaken: random(4) === 0 ? null : `vm${random(15)}`,
        }),
      )
      const pick = (ids: string[]) => all.filter(({ runId }) => ids.includes(runId))
      const working = pick(admit(all.slice(0, 10), [], some))
      const waiting = all.slice(10)
      const admitted = admit(waiting, working, some)
      const joined = [...working, ...pick(admitted)]
      expect(breaks(joined, some), `SEED=${seed}`).toBe(false)
      for (const left of waiting.filter(({ runId }) => !admitted.includes(runId))) {
        expect(breaks([...joined, left], some), `SEED=${seed} ${left.runId}`).toBe(true)
      }
      const order = waiting.map(({ runId }) => runId).filter((id) => admitted.includes(id))
      expect(admitted, `SEED=${seed}`).toEqual(order)
    },
  )
})
