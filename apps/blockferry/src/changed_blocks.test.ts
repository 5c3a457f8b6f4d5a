import { BackupError } from '@blockferry/errors'
import { describe, expect, it } from 'vitest'
import { parseChangedBlocks } from './changed_blocks.ts'

const parse = (list: unknown) => parseChangedBlocks(JSON.stringify(list), 'x.json')

function failureOf(list: unknown): BackupError {
  try {
    parse(list)
  } catch (thrown) {
    if (thrown instanceof BackupError) return thrown
  }
  throw new Error('it was accepted')
}

describe('parseChangedBlocks', () => {
  it('takes the list of one disk and joins neighbours', () => {
    const list = {
      grain: 4,
      size: 64,
      changed_bytes: 12,
      extents: [
        [0, 4],
        [4, 4],
        [60, 4],
      ],
    }
    expect(parse(list)).toEqual([
      {
        disk: '',
        sizeBytes: 64,
        supplied: {
          disk: '',
          extents: [
            { byteOffset: 0n, sizeBytes: 8n },
            { byteOffset: 60n, sizeBytes: 4n },
          ],
        },
      },
    ])
  })

  it('takes a list per disk', () => {
    const disks = { vda: { extents: [] }, vdb: { extents: [[0, 1]] } }
    expect(parse({ disks }).map(({ disk }) => disk)).toEqual(['vda', 'vdb'])
  })

  it('cuts a last extent in whole grains at the end of the disk', () => {
    const [list] = parse({ grain: 65536, size: 66048, extents: [[65536, 65536]] })
    expect(list?.supplied.extents).toEqual([{ byteOffset: 65536n, sizeBytes: 512n }])
  })

  it.each([
    [{ extents: 'all' }, 'extents'],
    [{ extents: [[0]] }, 'extents[0]'],
    [{ extents: [[0, -1]] }, 'extents[0]'],
    [{ extents: [[0, 1.5]] }, 'extents[0]'],
    [{ extents: [['0', 1]] }, 'extents[0]'],
    [{ extents: [[0, 2 ** 53]] }, 'extents[0]'],
    [
      {
        extents: [
          [8, 8],
          [0, 8],
        ],
      },
      'extents[1]',
    ],
    [
      {
        extents: [
          [0, 8],
          [4, 8],
        ],
      },
      'extents[1]',
    ],
    [{ grain: 4, extents: [[2, 4]] }, 'extents[0]'],
    [{ size: 8, extents: [[0, 9]] }, 'extents[0]'],
    [{ grain: 4, size: 8, extents: [[12, 4]] }, 'extents[0]'],
    [{ grain: 0, extents: [] }, 'grain'],
    [{ size: -1, extents: [] }, 'size'],
    [{ disks: [] }, 'disks'],
    [{ disks: { vda: [] } }, 'disks["vda"]'],
    [{ disks: { vda: { extents: [[1]] } } }, 'disks["vda"].extents[0]'],
    [[], ''],
  ])('refuses %j and names the field %s', (list, field) => {
    const failure = failureOf(list)
    expect(failure.reason).toBe('CHANGED_BLOCKS_INVALID')
    expect(failure.metadata.field).toBe(field)
  })

  it('refuses a list that fits no message, unless its extents are neighbours', () => {
    const extents = (step: number) =>
      Array.from({ length: 400_001 }, (_, index) => [index * step, 1])
    expect(failureOf({ extents: extents(2) }).message).toContain('larger grain')
    expect(parse({ extents: extents(1) })[0]?.supplied.extents).toHaveLength(1)
  })

  it('refuses what is not JSON', () => {
    expect(() => parseChangedBlocks('{', 'x.json')).toThrow('not JSON')
  })
})
