import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, open, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { listImageVms } from './folder_inventory.ts'

const signal = () => new AbortController().signal

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
    const [vm] = await listImageVms(folder, signal())
    const seen = [...(vm?.disks ?? []), ...(vm?.uncovered ?? [])]
    expect(seen.map(({ id }) => id).sort()).toEqual(['vda.qcow2', 'vdb.before-the-move.raw'])
  })

  it('takes a link to a block device for a disk', async (context) => {
    const backing = join(folder, 'backing')
    await writeFile(backing, '')
    await truncate(backing, 4 << 20)
    const device = loopOf(backing)
    if (device === null) {
      console.warn('SKIPPED: no loop device can be made here')
      return context.skip()
    }
    try {
      await symlink(device, join(folder, 'web-1', 'root'))
      const [vm] = await listImageVms(folder, signal())
      expect(vm).toMatchObject({
        refused: null,
        disks: [{ id: 'root', format: 'raw', sizeBytes: 4 << 20 }],
        uncovered: [],
      })
    } finally {
      execFileSync('losetup', ['-d', device])
    }
  })

  it('reports what a machine may run from in sub-folders', async () => {
    const vm = join(folder, 'web-1')
    const image = (format: string, path: string, ...more: string[]) =>
      execFileSync('qemu-img', ['create', '-q', '-f', format, ...more, join(vm, path), '4M'])
    await mkdir(join(vm, 'Snapshots', 'deep'), { recursive: true })
    image('vdi', 'sda.vdi')
    image('vdi', 'Snapshots/{1}.vdi')
    await makeDifferencing(join(vm, 'Snapshots/{1}.vdi'))
    image('qcow2', 'base.qcow2')
    image('qcow2', 'Snapshots/one.qcow2', '-F', 'qcow2', '-b', '../base.qcow2')
    image('qcow2', 'Snapshots/deep/two.qcow2', '-F', 'qcow2', '-b', '../one.qcow2')
    await writeFile(join(vm, 'Snapshots', 'saved.sav'), Buffer.alloc(2 << 20))
    await writeFile(join(vm, 'Snapshots', '{1}.vdi.before-20261123-074707-22f88c'), '')
    const [found] = await listImageVms(folder, signal())
    expect(found?.disks.map(({ id }) => id)).toEqual(['base.qcow2', 'sda.vdi'])
    expect(found?.uncovered).toMatchObject([
      { id: 'Snapshots/{1}.vdi', reason: 'DISK_FORMAT_UNSUPPORTED' },
      { id: 'Snapshots/deep/two.qcow2', reason: 'DISK_FORMAT_UNSUPPORTED' },
    ])
    expect(found?.uncovered[0]?.message).toMatch(/only the differences.*older state of its disk/)
    expect(found?.uncovered[1]?.message).toContain('in a sub-folder and is not backed up')
  })

  it('takes no image in a sub-folder for more than what a disk lies on', async () => {
    const vm = join(folder, 'web-1')
    await mkdir(join(vm, 'below'))
    const create = ['create', '-q', '-f', 'qcow2']
    execFileSync('qemu-img', [...create, join(vm, 'below', 'base.qcow2'), '4M'])
    const above = ['-F', 'qcow2', '-b', 'below/base.qcow2', join(vm, 'top.qcow2')]
    execFileSync('qemu-img', [...create, ...above])
    const [found] = await listImageVms(folder, signal())
    expect(found).toMatchObject({ disks: [{ id: 'top.qcow2' }], uncovered: [] })
    // Alone they make no machine of their folder.
    await rm(join(vm, 'top.qcow2'))
    expect(await listImageVms(folder, signal())).toEqual([])
  })

  it('says which sub-folders it did not look into', async () => {
    const vm = join(folder, 'web-1')
    await writeFile(join(vm, 'vda.raw'), '')
    await mkdir(join(vm, '1', '2', '3', '4', '5'), { recursive: true })
    await mkdir(join(vm, 'many'))
    await symlink(folder, join(vm, 'link'))
    for (let index = 0; index < 1_000; index++) await writeFile(join(vm, 'many', `${index}`), '')
    const [found] = await listImageVms(folder, signal())
    expect(found?.disks.map(({ id }) => id)).toEqual(['vda.raw'])
    expect(found?.uncovered.map(({ message }) => message.split(';')[0])).toEqual([
      `look for images in ${join(vm, 'link')}: a link to another folder`,
      `look for images in ${join(vm, 'many')}: more than 1000 files in sub-folders`,
    ])
    await rm(join(vm, 'many'), { recursive: true })
    const [deep] = await listImageVms(folder, signal())
    expect(deep?.uncovered.map(({ message }) => message.split(';')[0])).toEqual([
      `look for images in ${join(vm, 'link')}: a link to another folder`,
      `look for images in ${join(vm, '1/2/3/4')}: deeper than 3 levels`,
    ])
  })
})

function loopOf(backing: string): string | null {
  try {
    return execFileSync('losetup', ['-f', '--show', backing]).toString().trim()
  } catch {
    return null
  }
}

/** As VirtualBox makes a snapshot: with the name of the image below it. */
async function makeDifferencing(path: string): Promise<void> {
  const file = await open(path, 'r+')
  await file.write(Buffer.alloc(16, 1), 0, 16, 440)
  await file.close()
}
