import { schedule } from '@blockferry/proto'
import { describe, expect, it } from 'vitest'
import { exitCodeOfReason, exitCodeOfRun, worstOf } from './exit_code.ts'
import { aRun } from './service_doubles.ts'

const uncovered = { disk: 'vdb', location: '', sizeBytes: 0n, reason: 'X', message: 'm' }
const failed = (reason: string) =>
  aRun({ state: schedule.Run_State.FAILED, error: { reason, message: '', metadata: {} } })

describe('exitCodeOfRun', () => {
  it('tells success, left-out disks, failures and cancelling apart', () => {
    const succeeded = aRun({ state: schedule.Run_State.SUCCEEDED })
    expect(exitCodeOfRun(succeeded)).toBe(0)
    expect(exitCodeOfRun({ ...succeeded, uncoveredDisks: [uncovered] })).toBe(3)
    expect(exitCodeOfRun(aRun({ state: schedule.Run_State.CANCELLED }))).toBe(130)
    expect(exitCodeOfRun(failed('BLOCK_CORRUPT'))).toBe(1)
    expect(exitCodeOfRun(failed('IMAGE_IN_USE'))).toBe(5)
  })
})

describe('exitCodeOfReason', () => {
  it.each([
    ['ARGUMENT_INVALID', 2],
    ['VM_NOT_FOUND', 4],
    ['VM_BUSY', 5],
    ['SERVICE_UNREACHABLE', 6],
    ['REASON_OF_THE_FUTURE', 1],
  ])('%s ends in %i', (reason, code) => expect(exitCodeOfReason(reason)).toBe(code))
})

describe('worstOf', () => {
  it('prefers errors to left-out disks', () => {
    expect(worstOf([])).toBe(0)
    expect(worstOf([0, 3, 0])).toBe(3)
    expect(worstOf([3, 5, 1])).toBe(5)
  })
})
