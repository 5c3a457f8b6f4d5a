import { backup, durationFromMs, schedule } from '@blockferry/proto'
import { describe, expect, it } from 'vitest'
import { jsonLine, plainJson, runJson } from './json.ts'
import { aBackup, aRun } from './service_doubles.ts'

describe('jsonLine', () => {
  it('keeps every digit of a size beyond 2^53', () => {
    expect(jsonLine({ size_bytes: 9_007_199_254_740_993n })).toBe('{"size_bytes":9007199254740993}')
  })
})

describe('runJson and plainJson', () => {
  it('names fields with units, states in words, and absent values null', () => {
    const run = runJson(
      aRun({
        state: schedule.Run_State.MOVING,
        level: backup.Level.INCREMENTAL,
        freezeDuration: durationFromMs(12.5),
        createTime: new Date('2026-11-23T07:15:00Z'),
        error: { reason: 'VM_BUSY', message: 'm', metadata: { someKey: 'v' } },
      }),
    )
    expect(run).toMatchObject({
      kind: 'backup',
      state: 'moving',
      level: 'incremental',
      consistency: '',
      freeze_duration_ms: 12.5,
      pause_duration_ms: null,
      create_time: '2026-11-23T07:15:00.000Z',
      end_time: null,
      vm_display_name: 'web-1',
      error: { reason: 'VM_BUSY', metadata: { someKey: 'v' } },
    })
  })

  it('gives names exactly as the guest has them', () => {
    const name = 'x\n\x1b[2J\u202e'
    const line = jsonLine(plainJson(aBackup({ vmDisplayName: name })))
    expect(JSON.parse(line).vm_display_name).toBe(name)
  })
})
