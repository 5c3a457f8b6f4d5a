import { existsSync } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { imageFormatOf, move, type snapshot } from '@blockferry/proto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isIdentical, MoveStand, oddName, run } from './move_stand.ts'

const { DONE } = move.Session_State
const gibibyte = 2 ** 30
const formats = [
  ['qcow2', 'qcow2'],
  ['vmdk', 'vmdk'],
  ['vhd', 'vpc'],
  ['vhdx', 'vhdx'],
  ['vdi', 'vdi'],
] as const
const sizes = { odd: 2 ** 20 + 512, ragged: 77_777, sparse: 3 * gibibyte }

let stand: MoveStand
let backup: string
let huge: string

async function disk(id: string, size: number): Promise<snapshot.PointDisk> {
  const path = await stand.raw(id, size, [
    { offset: 0, size: 70_000, seed: 1 },
    { offset: size - 700, size: 700, seed: 2 },
  ])
  return {
    ...{ disk: id, sizeBytes: BigInt(size), format: 'raw', location: path },
    ...{ address: { $case: 'rawPath', value: path }, changedContext: '', baseBackup: '' },
  } as snapshot.PointDisk
}

beforeAll(async () => {
  stand = await MoveStand.start()
  const disks = Object.entries(sizes).map(([id, size]) => disk(id, size))
  backup = (await stand.backup(stand.request(await Promise.all(disks)))).name
  huge = (await stand.backup(stand.request([await disk('huge', 2048 * gibibyte)]))).name
})
afterAll(async () => {
  await stand[Symbol.asyncDispose]()
})

describe('restore to an image', () => {
  it.each(formats)('of format %s is identical and thin', async (name, driver) => {
    const format = imageFormatOf(name) as move.ImageFormat
    const folder = stand.path(`new ${name} ${oddName}`)
    const target = (id: string) => join(folder, `${id}, "${oddName}`)
    const done = await stand.restore(
      backup,
      Object.keys(sizes).map((id) => ({ disk: id, targetPath: target(id), format })),
    )
    expect(done).toMatchObject({ state: DONE, errorMessage: '' })
    for (const [id, size] of Object.entries(sizes)) {
      expect(await isIdentical(stand.path(id), target(id), driver), id).toBe(true)
      const { stdout } = await run('qemu-img', ['info', '--output=json', '-f', driver, target(id)])
      expect(JSON.parse(stdout)['virtual-size']).toBe(Math.ceil(size / 512) * 512)
      const { blocks } = await stat(target(id))
      expect(blocks * 512).toBeLessThan(6 * 2 ** 20)
    }
    expect((await readdir(folder)).length).toBe(3)
  })

  it('gives a VMDK its own name in the text inside', async () => {
    const format = move.ImageFormat.VMDK
    const targetPath = stand.path('named.vmdk')
    await stand.restore(backup, [{ disk: 'odd', targetPath, format }])
    const head = (await readFile(targetPath)).subarray(0, 20 * 512).toString('latin1')
    expect(head).toMatch(/^RW 2049 SPARSE "named\.vmdk"$/m)
    expect(head).not.toContain('.part')
  })

  it.each([
    ['vhd', 2040],
    ['vmdk', 2047],
  ])('of format %s names its limit of %i GiB and writes nothing', async (name, limit) => {
    const targetPath = stand.path(`nowhere/${name}`)
    const format = imageFormatOf(name) as move.ImageFormat
    const failure = await stand.restore(huge, [{ disk: 'huge', targetPath, format }]).then(
      () => null,
      (thrown) => thrown,
    )
    expect(failure).toMatchObject({ reason: 'DISK_FORMAT_UNSUPPORTED' })
    expect(failure.message).toContain(`at most ${limit} GiB; restore it as`)
    expect(existsSync(stand.path('nowhere'))).toBe(false)
  })

  it.each(['vhdx', 'vdi'] as const)('of format %s holds 2 TiB', async (name) => {
    const targetPath = stand.path(`large.${name}`)
    const format = imageFormatOf(name) as move.ImageFormat
    const done = await stand.restore(huge, [{ disk: 'huge', targetPath, format }])
    expect(done).toMatchObject({ state: DONE, errorMessage: '' })
  })

  it.each(formats.slice(1))('of format %s swaps it in place', async (name, driver) => {
    const targetPath = stand.path(`own.${name}`)
    const size = name === 'vhd' ? ['-o', 'force_size=on'] : []
    await run('qemu-img', ['create', '-q', '-f', driver, ...size, targetPath, '5M'])
    const old = await readFile(targetPath)
    const format = imageFormatOf(name) as move.ImageFormat
    const done = await stand.restore(backup, [{ disk: 'odd', targetPath, format, replace: true }])
    expect(done).toMatchObject({ state: DONE, errorMessage: '' })
    expect(await isIdentical(stand.path('odd'), targetPath, driver)).toBe(true)
    expect((await readFile(done.disks[0]?.keptPath ?? '')).equals(old)).toBe(true)
  })

  it('does not replace a VMDK whose data is in other files', async () => {
    const targetPath = stand.path('flat.vmdk')
    const flat = ['-o', 'subformat=monolithicFlat', targetPath, '5M']
    await run('qemu-img', ['create', '-q', '-f', 'vmdk', ...flat])
    const format = move.ImageFormat.VMDK
    const failure = await stand
      .restore(backup, [{ disk: 'odd', targetPath, format, replace: true }])
      .then(
        () => null,
        (thrown) => thrown,
      )
    expect(failure).toMatchObject({ reason: 'DISK_FORMAT_UNSUPPORTED' })
    expect(failure.message).toContain('in several files')
  })

  it('does not replace a device', async () => {
    const failure = await stand
      .restore(backup, [{ disk: 'odd', targetPath: '/dev/null', replace: true }])
      .then(
        () => null,
        (thrown) => thrown,
      )
    expect(failure).toMatchObject({ reason: 'TARGET_EXISTS' })
    expect(failure.message).toContain('is not a file')
  })
})
