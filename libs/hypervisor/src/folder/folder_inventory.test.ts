import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { listImageVms } from './folder_inventory.ts'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp('/tmp/blockferry-inventory-')
  await mkdir(join(folder, 'web-1'))
})
afterEach(() => rm(folder, { recursive: true }))

describe('listImageVms', () => {
  it('takes no image for a disk that a restore in place left beside it', async () => {
    for (const name of [
      'vda.qcow2',
      'vda.qcow2.before-20261123-074707-22f88c',
      '.vda.qcow2.20261123-074707-22f88c-0.part',
      'vdb.before-the-move.raw',
    ]) {
      await writeFile(join(folder, 'web-1', name), '')
      await truncate(join(folder, 'web-1', name), 4 << 20)
    }
    const [vm] = await listImageVms(folder, new AbortController().signal)
    const seen = [...(vm?.disks ?? []), ...(vm?.uncovered ?? [])]
    expect(seen.map(({ id }) => id).sort()).toEqual(['vda.qcow2', 'vdb.before-the-move.raw'])
  })
})
