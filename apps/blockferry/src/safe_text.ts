// Names of VMs, disks and paths come from guests and hosts. In a table they must not move the
// cursor, hide text or break a line, so everything invisible is spelt out; JSON stays exact.

/** Controls, format characters (direction overrides, zero width), line ends, lone surrogates. */
const invisible = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

/** `text` with every invisible character as `\x1b` or `\u{202e}`. */
export function safeText(text: string): string {
  return text.replace(invisible, (character) => {
    const code = character.codePointAt(0) ?? 0
    const hex = code.toString(16)
    return code < 0x100 ? `\\x${hex.padStart(2, '0')}` : `\\u{${hex}}`
  })
}

/** The same for a message of several lines: line ends stay. */
export const safeLines = (text: string): string => text.split('\n').map(safeText).join('\n')

/** First and last code points that take two columns: East Asian wide, and emoji. */
const wide: readonly [number, number][] = [
  [0x1100, 0x115f],
  [0x2e80, 0x303e],
  [0x3041, 0xa4cf],
  [0xa960, 0xa97f],
  [0xac00, 0xd7a3],
  [0xf900, 0xfaff],
  [0xfe30, 0xfe6f],
  [0xff01, 0xff60],
  [0xffe0, 0xffe6],
  [0x1f300, 0x1f64f],
  [0x1f680, 0x1f6ff],
  [0x1f900, 0x1f9ff],
  [0x20000, 0x3fffd],
]

function columnsOfCharacter(character: string): number {
  if (/\p{M}/u.test(character)) return 0
  const code = character.codePointAt(0) ?? 0
  return wide.some(([first, last]) => code >= first && code <= last) ? 2 : 1
}

/** Columns that `text` takes on a terminal. */
export function widthOf(text: string): number {
  let width = 0
  for (const character of text) width += columnsOfCharacter(character)
  return width
}

/** `text` cut to `width` columns; `…` stands for what was left out, at the end or in the middle. */
export function shorten(text: string, width: number, where: 'end' | 'middle' = 'end'): string {
  if (widthOf(text) <= width) return text
  if (width < 1) return ''
  const room = width - 1
  const tailRoom = where === 'end' ? 0 : Math.floor(room / 2)
  const tail = takeColumns([...text].reverse(), tailRoom)
    .reverse()
    .join('')
  return `${takeColumns([...text], room - tailRoom).join('')}…${tail}`
}

function takeColumns(characters: string[], width: number): string[] {
  let left = width
  const end = characters.findIndex((character) => {
    left -= columnsOfCharacter(character)
    return left < 0
  })
  return end === -1 ? characters : characters.slice(0, end)
}

/** `text` in lines of at most `width` columns, broken between words; longer words stay whole. */
export function wrapWords(text: string, width: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last !== undefined && widthOf(last) + 1 + widthOf(word) <= width) {
      lines[lines.length - 1] = `${last} ${word}`
    } else {
      lines.push(word)
    }
  }
  return lines
}
