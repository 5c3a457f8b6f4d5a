import { formatBytes, formatDuration } from '@blockferry/core'

export interface DiskReport {
  disk: string
  size_bytes: number
  on_disk_bytes: number
  allocated_bytes: number
  changed_bytes: number
  read_bytes: number
  stored_bytes: number
}

export interface BackupReport {
  backup: string
  level: string
  duration_ms: number
  rate_bytes_per_s: number
  freeze_ms: number
  pause_ms: number
  consistency: string
  decisions: string[]
  disks: DiskReport[]
}

export interface RestoreReport {
  backup: string
  disk: string
  format: string
  duration_ms: number
  identical: boolean
  file_system_clean: boolean
}

export interface Report {
  set_up_ms: number
  boot_ms: number
  duration_ms: number
  backups: BackupReport[]
  restores: RestoreReport[]
  self_test: { reference_flip_detected: boolean; pack_flip_detected: boolean }
  left_running: string[]
}

const bold = (text: string) => (process.stdout.isTTY ? `\x1b[1m${text}\x1b[0m` : text)

function table(rows: string[][]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? '').length)),
  )
  const pad = (cell: string, column: number) =>
    column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)
  return rows.map((row) => `  ${row.map(pad).join('  ')}`.trimEnd()).join('\n')
}

const columns = ['disk', 'size', 'on disk', 'allocated', 'changed', 'read', 'stored']

const diskRow = (disk: DiskReport): string[] => [
  disk.disk,
  formatBytes(disk.size_bytes),
  formatBytes(disk.on_disk_bytes),
  formatBytes(disk.allocated_bytes),
  formatBytes(disk.changed_bytes),
  formatBytes(disk.read_bytes),
  formatBytes(disk.stored_bytes),
]

export const hasPassed = (report: Report): boolean =>
  report.restores.length > 0 &&
  report.restores.every(({ identical, file_system_clean }) => identical && file_system_clean) &&
  report.self_test.reference_flip_detected &&
  report.self_test.pack_flip_detected &&
  report.left_running.length === 0

export function printReport(report: Report): void {
  const lines: string[] = ['']
  for (const backup of report.backups) {
    lines.push(
      bold(`${backup.level} backup ${backup.backup}`),
      `  took ${formatDuration(backup.duration_ms)}, read at ${formatBytes(backup.rate_bytes_per_s)}/s, ` +
        `file systems frozen ${backup.freeze_ms.toFixed(0)} ms, VM paused ${backup.pause_ms.toFixed(1)} ms`,
      `  ${backup.consistency}-consistent; ${backup.decisions.join(', ')}`,
      table([columns, ...backup.disks.map(diskRow)]),
      '',
    )
  }
  lines.push(bold('Restores, compared with what nbdcopy read from the same point'))
  lines.push(
    table([
      ['disk', 'of backup', 'as', 'took', 'identical', 'e2fsck'],
      ...report.restores.map((restore) => [
        restore.disk,
        restore.backup,
        restore.format,
        formatDuration(restore.duration_ms),
        restore.identical ? 'yes' : 'NO',
        restore.file_system_clean ? 'clean' : 'DAMAGED',
      ]),
    ]),
    '',
    `One flipped byte in a reference ${found(report.self_test.reference_flip_detected)}, ` +
      `in a pack ${found(report.self_test.pack_flip_detected)}.`,
    `Set-up ${formatDuration(report.set_up_ms)}, guest's boot ${formatDuration(report.boot_ms)}, ` +
      `everything ${formatDuration(report.duration_ms)}.`,
    hasPassed(report) ? 'The demo has passed.' : 'THE DEMO HAS FAILED.',
  )
  console.log(lines.join('\n'))
}

const found = (detected: boolean) => (detected ? 'was found' : 'WAS NOT FOUND')
