import { describe, expect, it } from 'vitest'
import { widthOf } from './safe_text.ts'
import { type Column, fieldLines, tableLines } from './table.ts'

interface Row {
  name: string
  size: string
  path: string
  note: string
}

const columns: Column<Row>[] = [
  { title: 'NAME', cell: ({ name }) => name, shrinkTo: 6 },
  { title: 'SIZE', cell: ({ size }) => size, right: true },
  { title: 'PATH', cell: ({ path }) => path, shrinkTo: 10, cut: 'middle' },
  { title: 'NOTE', cell: ({ note }) => note, dispensable: 1 },
]
const row: Row = {
  name: 'a-rather-long-name-of-a-vm',
  size: '10.0 GiB',
  path: '/srv/images/of/everything/web.qcow2',
  note: 'a note that is not needed',
}

describe('tableLines', () => {
  it('shows everything where there is room', () => {
    expect(tableLines(columns, [{ ...row, name: 'web' }], 200)).toEqual([
      'NAME      SIZE  PATH                                 NOTE',
      'web   10.0 GiB  /srv/images/of/everything/web.qcow2  a note that is not needed',
    ])
  })

  it.each([200, 100, 80, 60, 40, 30])('keeps every line within %i columns', (width) => {
    const rows = [row, { ...row, name: '日本語の仮想マシン', path: '\n\n\n' }]
    for (const line of tableLines(columns, rows, width)) {
      expect(widthOf(line)).toBeLessThanOrEqual(width)
      expect(line).not.toContain('\n')
    }
  })

  it('never cuts a number', () => {
    expect(tableLines(columns, [row], 30).join('\n')).toContain('10.0 GiB')
  })

  it('shortens before it leaves a column out', () => {
    const [wide] = tableLines(columns, [row], 80)
    const [narrow] = tableLines(columns, [row], 40)
    expect(wide).toContain('NOTE')
    expect(narrow).not.toContain('NOTE')
  })

  it('lets no name break a line or hide another', () => {
    const [, line] = tableLines(columns, [{ ...row, name: 'x\r\x1b[1Aroot' }], 200)
    expect(line).toContain('x\\x0d\\x1b[1Aroot')
  })
})

describe('fieldLines', () => {
  it('lines values up and leaves empty ones out', () => {
    const lines = fieldLines(
      [
        ['vm', 'web\n1'],
        ['empty', ''],
        ['disks', ['vda: 1', 'vdb: 2']],
        ['none', []],
      ],
      80,
    )
    expect(lines).toEqual(['vm:     web\\x0a1', 'disks:  vda: 1', '        vdb: 2'])
  })

  it('wraps long text between words, below its beginning', () => {
    const lines = fieldLines([['note', 'one two three four five six seven']], 30)
    expect(lines).toEqual(['note:  one two three four five', '       six seven'])
  })
})
