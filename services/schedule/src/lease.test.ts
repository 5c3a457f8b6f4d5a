import { describe, expect, it } from 'vitest'
import { LeaseWatch } from './lease.ts'

const lease = (heartbeat: bigint, tokenNumber = 1n) => ({ runId: 'r', tokenNumber, heartbeat })

describe('LeaseWatch', () => {
  it('calls a lease dead when its heartbeat stood still for the whole time', () => {
    const watch = new LeaseWatch(100)
    expect(watch.dead([lease(5n)], 0).size).toBe(0)
    expect(watch.dead([lease(5n)], 99).size).toBe(0)
    expect([...watch.dead([lease(5n)], 100)]).toEqual(['r'])
  })

  it('begins anew with every beat and with every claim', () => {
    const watch = new LeaseWatch(100)
    watch.dead([lease(5n)], 0)
    expect(watch.dead([lease(6n)], 99).size).toBe(0)
    expect(watch.dead([lease(6n)], 198).size).toBe(0)
    expect(watch.dead([lease(6n, 2n)], 250).size).toBe(0)
    expect(watch.dead([lease(6n, 2n)], 349).size).toBe(0)
    expect(watch.dead([lease(6n, 2n)], 350).size).toBe(1)
  })

  it('forgets a lease that was gone meanwhile', () => {
    const watch = new LeaseWatch(100)
    watch.dead([lease(5n)], 0)
    watch.dead([], 50)
    expect(watch.dead([lease(5n)], 150).size).toBe(0)
  })
})
