import { schedule } from '@blockferry/proto'
import { describe, expect, it } from 'vitest'
import { newMeter, newProgressPrinter } from './progress.ts'
import { widthOf } from './safe_text.ts'
import { aDisk, aRun, fakeTerminal } from './service_doubles.ts'

const moving = (positionBytes: bigint, readBytes: bigint) =>
  aRun({
    state: schedule.Run_State.MOVING,
    disks: [aDisk({ sizeBytes: 100n << 20n, positionBytes, readBytes })],
  })

describe('newMeter', () => {
  it('tells rate and remaining time from what moved', () => {
    const meter = newMeter()
    meter.line(moving(0n, 0n), 0)
    const line = meter.line(moving(25n << 20n, 20_000_000n), 1_000)
    expect(line).toBe('web-1  moving  25 % of 100 MiB  read 19.1 MiB  20.0 MB/s  ETA 3 s')
  })

  it('forgets what it measured when a new point is read from its start', () => {
    const meter = newMeter()
    meter.line(moving(0n, 0n), 0)
    meter.line(moving(90n << 20n, 90_000_000n), 1_000)
    expect(meter.line(moving(0n, 0n), 2_000)).not.toContain('MB/s')
  })

  it('says 100 % of a disk of zero bytes that is done', () => {
    const run = aRun({
      state: schedule.Run_State.MOVING,
      disks: [aDisk({ sizeBytes: 0n, done: true })],
    })
    expect(newMeter().line(run, 0)).toContain('100 % of 0 B')
  })

  it('counts what a differential restore compares, and tells what it writes', () => {
    const run = aRun({
      kind: schedule.Run_Kind.RESTORE,
      disks: [aDisk({ comparedBytes: 2048n, storedBytes: 1024n })],
    })
    expect(newMeter().line(run, 0)).toContain('compared 2.0 KiB  written 1.0 KiB')
  })

  it('counts what a restore writes', () => {
    const run = aRun({
      kind: schedule.Run_Kind.RESTORE,
      disks: [aDisk({ storedBytes: 1024n, readBytes: 10n })],
    })
    expect(newMeter().line(run, 0)).toContain('written 1.0 KiB')
  })
})

describe('newProgressPrinter', () => {
  it('writes one line over and takes it away in the end', () => {
    const terminal = fakeTerminal(40, true)
    const printer = newProgressPrinter(terminal, false)
    const run = { ...moving(1n, 1n), vmDisplayName: 'a very long name that would wrap the line' }
    printer.show(run, 0)
    printer.clear()
    const [, line, end] = terminal.errText.split('\r')
    expect(widthOf(line?.replace('\x1b[K', '') ?? '')).toBeLessThan(40)
    expect(end).toBe('\x1b[K')
    expect(terminal.errText).not.toContain('\n')
  })

  it('prints a plain line every five seconds where there is no terminal', () => {
    const terminal = fakeTerminal()
    const printer = newProgressPrinter(terminal, false)
    for (let ms = 0; ms < 12_000; ms += 200) printer.show(moving(BigInt(ms), BigInt(ms)), ms)
    expect(terminal.errText.trimEnd().split('\n')).toHaveLength(3)
    expect(terminal.errText).not.toContain('\x1b')
  })

  it('is silent when asked to be', () => {
    const terminal = fakeTerminal(80, true)
    newProgressPrinter(terminal, true).show(moving(1n, 1n), 0)
    expect(terminal.errText).toBe('')
  })
})
