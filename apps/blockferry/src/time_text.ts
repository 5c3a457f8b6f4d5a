const timeFormat = new Intl.DateTimeFormat('sv-SE', {
  year: 'numeric',
  month: '2-digit',
  day: '2-digit',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  timeZoneName: 'short',
})

/** `2026-11-23 07:15:00 UTC`: local time with its zone; empty when there is none. */
export const timeText = (time: Date | undefined): string =>
  time ? timeFormat.format(time).replace(',', '') : ''

const units: Record<string, number> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** The same backwards: `30h` is `1d 6h`; parts of a second are left out. */
export function shortDuration(ms: number): string {
  let left = ms
  const parts = Object.entries(units)
    .sort(([, one], [, other]) => other - one)
    .flatMap(([unit, unitMs]) => {
      const count = Math.floor(left / unitMs)
      left -= count * unitMs
      return count > 0 ? [`${count}${unit}`] : []
    })
  return parts.join(' ') || '0s'
}

/** `90m`, `12h`, `1d 6h` in milliseconds; null when it is not a duration. */
export function durationMs(text: string): number | null {
  const parts = text.trim().match(/\d+\s*[smhd]/g)
  if (!parts || parts.join('').replaceAll(/\s/g, '') !== text.replaceAll(/\s/g, '')) return null
  return parts.reduce(
    (sum, part) => sum + Number.parseInt(part, 10) * (units[part.slice(-1)] ?? 0),
    0,
  )
}
