import { describe, expect, it } from 'vitest'
import { safeText, shorten, widthOf } from './safe_text.ts'

describe('safeText', () => {
  it.each([
    ['web-1', 'web-1'],
    ['two\nlines', 'two\\x0alines'],
    ['\x1b[2Jgone', '\\x1b[2Jgone'],
    ['\x9b31m', '\\x9b31m'],
    ['abc\u202etxt.exe', 'abc\\u{202e}txt.exe'],
    ['zero\u200bwidth', 'zero\\u{200b}width'],
    ['line\u2028end', 'line\\u{2028}end'],
    ['\ud800', '\\u{d800}'],
    ['日本 ü', '日本 ü'],
  ])('spells out what cannot be seen in %j', (text, safe) => expect(safeText(text)).toBe(safe))
})

describe('widthOf', () => {
  it('counts columns, not characters', () => {
    expect(widthOf('web')).toBe(3)
    expect(widthOf('日本')).toBe(4)
    expect(widthOf('u\u0308')).toBe(1)
  })
})

describe('shorten', () => {
  it('cuts at the end or in the middle and never passes the width', () => {
    expect(shorten('abcdefgh', 8)).toBe('abcdefgh')
    expect(shorten('abcdefgh', 5)).toBe('abcd…')
    expect(shorten('/srv/images/web.qcow2', 12, 'middle')).toBe('/srv/i…qcow2')
    expect(widthOf(shorten('日本日本日本', 6))).toBeLessThanOrEqual(6)
    expect(shorten('abc', 0)).toBe('')
  })
})
