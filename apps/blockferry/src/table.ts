import { safeText, shorten, widthOf, wrapWords } from './safe_text.ts'

export interface Column<Row> {
  title: string
  cell: (row: Row) => string
  /** Numbers and sizes. */
  right?: boolean
  /** May be cut down to so many columns when the terminal is narrow; others never are. */
  shrinkTo?: number
  /** Where a cut goes: the middle suits paths and ids, whose ends differ. */
  cut?: 'end' | 'middle'
  /** Left out first, highest first, when shortening is not enough. */
  dispensable?: number
}

const gap = 2

/** Rows as lines of at most `width` columns: cells are shortened, then columns left out. */
export function tableLines<Row>(columns: Column<Row>[], rows: Row[], width: number): string[] {
  let shown = columns
  for (;;) {
    const cells = rows.map((row) => shown.map(({ cell }) => safeText(cell(row))))
    const widths = fitted(shown, cells, width)
    const least = leastNeeded(shown)
    if (widths !== null || least === undefined) {
      return [shown.map(({ title }) => title), ...cells].map((line) =>
        lineOf(shown, line, widths ?? natural(shown, cells)),
      )
    }
    shown = shown.filter((column) => column !== least)
  }
}

function leastNeeded<Row>(columns: Column<Row>[]): Column<Row> | undefined {
  const candidates = columns.filter(({ dispensable }) => dispensable !== undefined)
  return candidates.sort((a, b) => (b.dispensable ?? 0) - (a.dispensable ?? 0))[0]
}

const natural = <Row>(columns: Column<Row>[], cells: string[][]): number[] =>
  columns.map(({ title }, index) =>
    Math.max(widthOf(title), ...cells.map((line) => widthOf(line[index] ?? ''))),
  )

/** Widths that fit, the widest shrinkable column cut first; null when nothing more can be cut. */
function fitted<Row>(columns: Column<Row>[], cells: string[][], width: number): number[] | null {
  const widths = natural(columns, cells)
  let excess = widths.reduce((sum, each) => sum + each, 0) + gap * (columns.length - 1) - width
  while (excess > 0) {
    let widest = -1
    columns.forEach(({ shrinkTo, title }, index) => {
      if (shrinkTo === undefined) return
      const floor = Math.max(shrinkTo, widthOf(title))
      const own = widths[index] ?? 0
      if (own > floor && own > (widths[widest] ?? 0)) widest = index
    })
    if (widest === -1) return null
    widths[widest] = (widths[widest] ?? 0) - 1
    excess--
  }
  return widths
}

function lineOf<Row>(columns: Column<Row>[], cells: string[], widths: number[]): string {
  const padded = columns.map(({ right, cut }, index) => {
    const width = widths[index] ?? 0
    const text = shorten(cells[index] ?? '', width, cut)
    const padding = ' '.repeat(Math.max(0, width - widthOf(text)))
    return right ? padding + text : text + padding
  })
  return padded.join(' '.repeat(gap)).trimEnd()
}

/** A name and its value, or its values below each other. */
export type Field = [name: string, value: string | string[]]

/** Names and values of one thing in lines of `columns`; empty values are left out. */
export function fieldLines(fields: Field[], columns: number): string[] {
  const shown = fields.filter(([, value]) => value.length > 0)
  const labelWidth = Math.max(0, ...shown.map(([name]) => widthOf(name))) + 1 + gap
  return shown.flatMap(([name, value]) =>
    [value].flat().flatMap((text, index) => {
      const label = index === 0 ? `${name}:` : ''
      return paragraph(label.padEnd(labelWidth), text, columns)
    }),
  )
}

const proseWidthMin = 20

/** Text for people behind `head`, wrapped between words; further lines stand below the first. */
export function paragraph(head: string, text: string, columns: number): string[] {
  const width = Math.max(proseWidthMin, columns - widthOf(head))
  return wrapWords(safeText(text), width).map(
    (line, index) => (index === 0 ? head : ' '.repeat(widthOf(head))) + line,
  )
}
