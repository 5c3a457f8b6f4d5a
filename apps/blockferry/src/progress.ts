import { formatBytes, formatDuration } from '@blockferry/core'
import { schedule } from '@blockferry/proto'
import { limits } from './config.ts'
import { stateName } from './json.ts'
import { safeText, shorten } from './safe_text.ts'
import type { Terminal } from './terminal.ts'

interface Sample {
  atMs: number
  movedBytes: number
  fraction: number
}

/** Tells rate and remaining time from the states of a run as they arrive. */
export interface Meter {
  /** One line about `run`, `atMs` of a monotonic clock. */
  line(run: schedule.Run, atMs: number): string
}

export function newMeter(): Meter {
  let samples: Sample[] = []
  return {
    line(run, atMs) {
      const sample = sampleOf(run, atMs)
      // Bytes that go backwards belong to a new point: what was measured before says nothing.
      if (sample.movedBytes < (samples.at(-1)?.movedBytes ?? 0)) samples = []
      samples = [...samples.filter((each) => atMs - each.atMs <= limits.rateWindowMs), sample]
      return lineOf(run, samples)
    },
  }
}

function sampleOf(run: schedule.Run, atMs: number): Sample {
  const isRestore = run.kind === schedule.Run_Kind.RESTORE
  let moved = 0n
  let position = 0n
  let size = 0n
  for (const disk of run.disks) {
    // A differential restore is as fast as it compares.
    moved += isRestore ? disk.comparedBytes || disk.storedBytes : disk.readBytes
    position += disk.done ? disk.sizeBytes : disk.positionBytes
    size += disk.sizeBytes
  }
  const allDone = run.disks.length > 0 && run.disks.every(({ done }) => done)
  const fraction = allDone ? 1 : size === 0n ? 0 : Number(position) / Number(size)
  return { atMs, movedBytes: Number(moved), fraction }
}

function lineOf(run: schedule.Run, samples: Sample[]): string {
  const name = shorten(safeText(run.vmDisplayName || run.vmIdentity || run.name), 24, 'middle')
  const parts = [name, run.cancelRequested ? 'cancelling' : stateName(run)]
  const [first, last] = [samples[0], samples.at(-1)]
  if (first && last && isMeasured(run)) parts.push(...measured(run, first, last))
  return parts.join('  ')
}

/** The size of a disk is known when it was opened; one of zero bytes when it is done. */
const isMeasured = ({ disks }: schedule.Run): boolean =>
  disks.some(({ sizeBytes, done }) => sizeBytes > 0n || done)

function measured(run: schedule.Run, first: Sample, last: Sample): string[] {
  const size = run.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0n)
  const differential = run.disks.some(({ comparedBytes }) => comparedBytes > 0n)
  const isRestore = run.kind === schedule.Run_Kind.RESTORE
  const verb = differential ? 'compared' : isRestore ? 'written' : 'read'
  const written = run.disks.reduce((sum, disk) => sum + disk.storedBytes, 0n)
  const percent = `${Math.floor(last.fraction * 100)} %`
  const parts = [`${percent} of ${formatBytes(size)}`, `${verb} ${formatBytes(last.movedBytes)}`]
  if (differential) parts.push(`written ${formatBytes(written)}`)
  const elapsedMs = last.atMs - first.atMs
  if (elapsedMs <= 0 || run.state !== schedule.Run_State.MOVING) return parts
  const bytesPerMs = (last.movedBytes - first.movedBytes) / elapsedMs
  parts.push(rateText(bytesPerMs))
  const fractionPerMs = (last.fraction - first.fraction) / elapsedMs
  if (fractionPerMs > 0 && last.fraction < 1) {
    parts.push(`ETA ${etaText((1 - last.fraction) / fractionPerMs)}`)
  }
  return parts
}

/** Whole seconds: more would only flicker. */
function etaText(ms: number): string {
  const seconds = Math.ceil(ms / 1000)
  return seconds < 60 ? `${seconds} s` : formatDuration(seconds * 1000)
}

/** Decimal megabytes per second, as disks and networks are sold. */
export function rateText(bytesPerMs: number): string {
  const rate = bytesPerMs / 1000
  return `${rate.toFixed(rate < 100 ? 1 : 0)} MB/s`
}

/** Shows the states of a run on standard error. */
export interface ProgressPrinter {
  show(run: schedule.Run, atMs: number): void
  /** Takes an unfinished line away, before something else is printed and at the end. */
  clear(): void
}

export function newProgressPrinter(terminal: Terminal, quiet: boolean): ProgressPrinter {
  if (quiet) return { show: () => {}, clear: () => {} }
  const meter = newMeter()
  return terminal.errIsTerminal ? rewriting(terminal, meter) : plain(terminal, meter)
}

function rewriting(terminal: Terminal, meter: Meter): ProgressPrinter {
  let open = false
  return {
    show(run, atMs) {
      // The last column stays free: some terminals wrap as soon as it is written.
      const line = shorten(meter.line(run, atMs), terminal.errColumns - 1)
      terminal.err(`\r${line}\x1b[K`)
      open = true
    },
    clear() {
      if (open) terminal.err('\r\x1b[K')
      open = false
    },
  }
}

function plain(terminal: Terminal, meter: Meter): ProgressPrinter {
  let shownMs = Number.NEGATIVE_INFINITY
  let shownState: schedule.Run_State | undefined
  return {
    show(run, atMs) {
      const line = meter.line(run, atMs)
      const isDue = atMs - shownMs >= limits.plainProgressIntervalMs
      if (!isDue && run.state === shownState) return
      terminal.err(`${line}\n`)
      shownMs = atMs
      shownState = run.state
    },
    clear() {},
  }
}
