import { describe, expect, it } from 'vitest'
import type { BaseCandidate } from '../driver.ts'
import { type BitmapDisk, bitmapActions, bitmapName, chooseBases, staleBitmaps } from './bitmaps.ts'

const repositoryId = '0123456789abcdef0123456789abcdef'
const healthy = { recording: true, busy: false, inconsistent: false }
const bitmapOf = (pointId: string, change = {}) => ({
  ...{ name: bitmapName(repositoryId, pointId), ...healthy, ...change },
})

const diskWith = (id: string, ...bitmaps: BitmapDisk['bitmaps']): BitmapDisk => ({
  ...{ id, sizeBytes: 1024, node: `node-${id}`, storesBitmaps: true, bitmaps },
})

const baseAt = (pointId: string, ...ids: string[]): BaseCandidate => ({
  backupId: `backup-${pointId}`,
  pointId,
  disks: ids.map((id) => ({ id, sizeBytes: 1024 })),
})

const [older, newer] = ['00000000000a', '00000000000b']
const bases = [baseAt(newer, 'a', 'b'), baseAt(older, 'a', 'b')]

describe('chooseBases', () => {
  it('takes the newest base that most disks can use, for all disks', () => {
    const both = [diskWith('a', bitmapOf(newer), bitmapOf(older)), diskWith('b', bitmapOf(older))]
    const chosen = chooseBases(both, bases, repositoryId).map(({ base }) => base?.backupId)
    expect(chosen).toEqual([`backup-${older}`, `backup-${older}`])
    const [first] = chooseBases(
      [diskWith('a', bitmapOf(older), bitmapOf(newer))],
      bases,
      repositoryId,
    )
    expect(first?.base?.backupId).toBe(`backup-${newer}`)
  })

  it.each([
    ['inconsistent', { inconsistent: true }],
    ['switched off', { recording: false }],
    ['in use', { busy: true }],
  ])('reads a disk whole whose bitmap is %s', (_, change) => {
    const disks = [diskWith('a', bitmapOf(newer, change)), diskWith('b', bitmapOf(newer))]
    const [lost, kept] = chooseBases(disks, bases, repositoryId)
    expect(lost?.base).toBeNull()
    expect(lost?.decisions[0]?.decision).toBe('CHANGE_TRACKING_LOST')
    expect(kept?.base?.backupId).toBe(`backup-${newer}`)
  })

  it.each([
    ['larger', 2048],
    ['smaller', 512],
  ])('reads a disk whole that is %s than in the base', (_, sizeBytes) => {
    const resized = { ...diskWith('a', bitmapOf(newer)), sizeBytes }
    const [changed, same] = chooseBases(
      [resized, diskWith('b', bitmapOf(newer))],
      bases,
      repositoryId,
    )
    expect(changed?.base).toBeNull()
    expect(changed?.decisions.map(({ decision }) => decision)).toEqual(['DISK_RESIZED'])
    expect(same?.base?.backupId).toBe(`backup-${newer}`)
  })

  it('never uses the bitmap of another repository', () => {
    const other = { ...bitmapOf(newer), name: bitmapName('f'.repeat(32), newer) }
    const [chosen] = chooseBases([diskWith('a', other)], bases, repositoryId)
    expect(chosen?.base).toBeNull()
    expect(staleBitmaps(diskWith('a', other), repositoryId, [])).toEqual([])
  })

  it('gives no reason when no base was asked for', () => {
    const [chosen] = chooseBases([diskWith('a')], [], repositoryId)
    expect(chosen).toMatchObject({ base: null, decisions: [] })
  })
})

describe('bitmapActions', () => {
  it('adds a bitmap before it copies the base into a view, and none to a raw disk', () => {
    const [chosen] = chooseBases([diskWith('a', bitmapOf(newer))], bases, repositoryId)
    if (!chosen) throw new Error('no disk')
    const types = bitmapActions(chosen, repositoryId, '00000000000c').map(({ type }) => type)
    const add = 'block-dirty-bitmap-add'
    expect(types).toEqual([add, add, 'block-dirty-bitmap-merge'])
    const raw = { ...chosen, disk: { ...chosen.disk, storesBitmaps: false }, base: null }
    expect(bitmapActions(raw, repositoryId, '00000000000c')).toEqual([])
  })
})
