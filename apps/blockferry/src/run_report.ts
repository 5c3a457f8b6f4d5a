// What is said about runs: when they were queued, and when they have ended.
import { formatBytes, formatDuration } from '@blockferry/core'
import { type backup, type move, msFromDuration, schedule } from '@blockferry/proto'
import { type Context, printOne } from './context.ts'
import { type ExitCode, exitCode, exitCodeOfRun, worstOf } from './exit_code.ts'
import { printFailure } from './failure.ts'
import { consistencyName, jsonLine, kindName, runJson } from './json.ts'
import { rateText } from './progress.ts'
import { lastPart, repositoryOf } from './resource_name.ts'
import { safeText } from './safe_text.ts'
import { paragraph } from './table.ts'

/** Runs that go on by themselves: their names, one per line. */
export function printQueued(context: Context, runs: schedule.Run[]): void {
  if (context.settings.output === 'json') {
    context.terminal.out(`${jsonLine(runs.map(runJson))}\n`)
    return
  }
  for (const { name } of runs) context.terminal.out(`${lastPart(name)}\n`)
}

/** Prints how a run has ended; the exit code says it to the shell. */
export function reportRun(context: Context, run: schedule.Run): ExitCode {
  const succeeded = run.state === schedule.Run_State.SUCCEEDED
  if (succeeded || context.settings.output === 'json') {
    printOne(context, runJson(run), () => endLines(context, run))
  }
  return warn(context, run)
}

/** The same for several; with JSON they are one array. */
export function reportRuns(
  context: Context,
  runs: schedule.Run[],
  report: (context: Context, run: schedule.Run) => ExitCode,
): ExitCode {
  if (context.settings.output !== 'json') return worstOf(runs.map((run) => report(context, run)))
  context.terminal.out(`${jsonLine(runs.map(runJson))}\n`)
  return worstOf(runs.map((run) => warn(context, run)))
}

function warn(context: Context, run: schedule.Run): ExitCode {
  const { terminal, settings } = context
  if (run.state === schedule.Run_State.SUCCEEDED) {
    if (!settings.quiet) {
      for (const { disk, message } of run.uncoveredDisks) {
        const text = paragraph('left out: ', `${disk}: ${message}`, terminal.columns)
        terminal.err(`${text.join('\n')}\n`)
      }
    }
    return exitCodeOfRun(run)
  }
  const cancelled = run.state === schedule.Run_State.CANCELLED
  const fallback = cancelled
    ? {
        reason: 'CANCELLED',
        message: `${kindName(run)} ${lastPart(run.name)}: cancelled; nothing of it is visible`,
      }
    : {
        reason: 'INTERNAL',
        message: `${kindName(run)} ${lastPart(run.name)}: failed without a reason`,
      }
  printFailure(terminal, settings.output, { metadata: {}, ...fallback, ...run.error })
  if (settings.output !== 'json' && !settings.quiet) {
    for (const line of damageLines(run.verifyReport)) terminal.err(`${safeText(line)}\n`)
  }
  return cancelled ? exitCode.cancelled : exitCodeOfRun(run)
}

function endLines(context: Context, run: schedule.Run): string[] {
  const isRestore = run.kind === schedule.Run_Kind.RESTORE
  if (context.settings.quiet) {
    if (isRestore) return run.disks.map((disk) => safeText(disk.targetPath))
    return [run.backup || run.name]
  }
  switch (run.kind) {
    case schedule.Run_Kind.RESTORE:
      return restoreLines(run)
    case schedule.Run_Kind.VERIFY:
      if (run.backup === '') return [verifiedLine(run)]
      return [
        `Verified ${lastPart(run.backup)}: every block decodes and has its digest.`,
        `  ${amounts(run)}`,
      ]
    case schedule.Run_Kind.COLLECT:
      return collectLines(run)
    case schedule.Run_Kind.RETAIN:
      return retainLines(run)
    case schedule.Run_Kind.SAVE:
      return [
        `Saved hosts, policies and repositories into ${lastPart(run.repository)} as ${lastPart(run.backup)}.`,
      ]
    default:
      return backupLines(context, run)
  }
}

/** With backups in the report every block was proven, else stored bytes alone. */
function verifiedLine({ repository, verifyReport }: schedule.Run): string {
  const count = verifyReport?.provenBackups.length ?? 0
  const proven = `every block of ${count} backup${count === 1 ? '' : 's'} decodes and has its digest`
  const what = count > 0 ? proven : 'every stored byte has its digest'
  return `Verified ${lastPart(repository)}: ${what}.`
}

function retainLines({ policy, removedBackups }: schedule.Run): string[] {
  const count = removedBackups.length
  const what = `${count} backup${count === 1 ? '' : 's'}`
  return [
    `Removed ${what} that ${lastPart(policy)} lets go${count > 0 ? '; they can be undeleted' : ''}.`,
    ...removedBackups.map((name) => `  ${lastPart(name)}`),
  ]
}

function collectLines(run: schedule.Run): string[] {
  const report = run.collectReport
  if (!report) return [`Collected ${lastPart(run.repository)}.`]
  const packs = (what: move.PackTotals | undefined): string =>
    `${formatBytes(what?.sizeBytes ?? 0n)} in ${what?.packCount ?? 0n} packs`
  const some = (what: move.PackTotals | undefined): boolean => (what?.packCount ?? 0n) > 0n
  const { dryRun, deleted, tombstoned, copied, waiting, spared } = report
  const lines = dryRun
    ? [`${lastPart(run.repository)}: a collection would give back ${packs(tombstoned)}.`]
    : [`Collected ${lastPart(run.repository)}: gave back ${packs(deleted)}.`]
  const { storedBytes, liveBytes, droppedBackups, waitsFor } = report
  lines.push(`  ${formatBytes(liveBytes)} of ${formatBytes(storedBytes)} are needed`)
  if (droppedBackups.length > 0) {
    lines.push(`  gone for good: ${safeText(droppedBackups.join(', '))}`)
  }
  if (some(copied)) lines.push(`  wrote anew what ${copied?.packCount} mostly dead packs held`)
  if (some(spared)) lines.push(`  needed again: ${packs(spared)}`)
  if (some(waiting)) lines.push(`  ${packs(waiting)} wait for ${waitsFor.length} open sessions`)
  return lines
}

function backupLines(context: Context, run: schedule.Run): string[] {
  const vm = safeText(run.vmDisplayName || run.vmIdentity)
  const lines = [
    `Backed up ${vm} as ${lastPart(run.backup)} in repository ${repositoryOf(run.backup)}.`,
    `  ${amounts(run)}`,
  ]
  const pauses = [
    ['frozen', msFromDuration(run.freezeDuration)] as const,
    ['paused', msFromDuration(run.pauseDuration)] as const,
  ].filter(([, ms]) => ms > 0)
  const reached = [consistencyName(run.consistency)].filter((text) => text !== '')
  const state = [
    ...reached.map((text) => `consistency: ${text}`),
    ...pauses.map(([verb, ms]) => `${verb} ${formatDuration(ms)}`),
  ]
  if (state.length > 0) lines.push(`  ${state.join(', ')}`)
  const width = context.terminal.columns
  lines.push(...run.decisions.flatMap((note) => paragraph('  ', decisionText(note), width)))
  return lines
}

function restoreLines(run: schedule.Run): string[] {
  const lines = [`Restored ${lastPart(run.backup)}.`, `  ${amounts(run)}`]
  for (const { disk, targetPath } of run.disks) {
    lines.push(`  ${safeText(`${disk}: ${targetPath}`)}`)
  }
  if (run.startScript !== '') lines.push(`  start it with: ${safeText(run.startScript)}`)
  return lines
}

/** `read 1.2 GiB of 10 GiB, stored 300 MiB, 14.2 s, 86 MB/s` */
export function amounts(run: schedule.Run): string {
  const sum = (pick: (disk: schedule.Run['disks'][number]) => bigint) =>
    run.disks.reduce((total, disk) => total + pick(disk), 0n)
  const size = sum((disk) => disk.sizeBytes)
  const read = sum((disk) => disk.readBytes)
  const stored = sum((disk) => disk.storedBytes)
  const isRestore = run.kind === schedule.Run_Kind.RESTORE
  const parts = [`read ${formatBytes(read)} of ${formatBytes(size)}`]
  if (isRestore) parts[0] = `wrote ${formatBytes(stored)} of ${formatBytes(size)}`
  const compared = sum((disk) => disk.comparedBytes)
  if (compared > 0n) parts.unshift(`compared ${formatBytes(compared)}`)
  if (run.kind === schedule.Run_Kind.BACKUP) parts.push(`stored ${formatBytes(stored)}`)
  const ms = elapsedMs(run)
  if (ms !== null) {
    parts.push(formatDuration(ms))
    const moved = isRestore ? compared || stored : read
    if (ms > 0 && moved > 0n) parts.push(rateText(Number(moved) / ms))
  }
  return parts.join(', ')
}

/** From the start to the end of the work; null while it is not known. */
export function elapsedMs({ startTime, endTime }: schedule.Run): number | null {
  return startTime && endTime ? endTime.getTime() - startTime.getTime() : null
}

export const decisionText = ({ disk, decision, message }: backup.DecisionNote): string =>
  `${disk === '' ? '' : `${disk}: `}${decision}: ${message}`

export const uncoveredText = ({ disk, reason, message }: backup.UncoveredDisk): string =>
  `${disk}: ${reason}: ${message}`

const damagesTold = 50

/** What is damaged, by backup; `run show --output json` has all of it. */
function damageLines(report: move.VerifyReport | undefined): string[] {
  if (!report) return []
  const lines = report.damages.slice(0, damagesTold).map((damage) => {
    const { backup, vmDisplayName, disk, path, offsetBytes, sizeBytes } = damage
    const whose = backup === '' ? path : `${backup} (${vmDisplayName}) ${disk}`
    return `  damaged: ${whose}, ${sizeBytes} bytes from ${offsetBytes}`
  })
  const more = report.damages.length - lines.length
  return more > 0 ? [...lines, `  and ${more} more places`] : lines
}
