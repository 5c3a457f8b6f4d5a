import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { checkTables } from './block_table.ts'
import { FileClaims } from './file_claims.ts'
import { findLayers } from './image_layers.ts'
import { probeImage } from './image_probe.ts'

const mib = 1024 * 1024

describe('FileClaims', () => {
  const claims = () =>
    new FileClaims(100 * mib, mib, [
      { offset: 0, sizeBytes: 512 },
      { offset: 8192, sizeBytes: 4096 },
    ])

  it('gives no block bytes of the header or of a table', () => {
    expect(claims().claim(0, mib)).toMatch(/header or tables/)
    expect(claims().claim(511, mib)).toMatch(/header or tables/)
    expect(claims().claim(512, 7680)).toBeNull()
    expect(claims().claim(512, 7681)).toMatch(/header or tables/)
    expect(claims().claim(12_287, 512)).toMatch(/header or tables/)
    expect(claims().claim(12_288, mib)).toBeNull()
  })

  it('gives the short block at the end of the disk bytes of its own', () => {
    const first = claims()
    expect(first.claim(2 * mib, mib)).toBeNull()
    expect(first.claim(3 * mib - 512, 1024)).toMatch(/two blocks/)
    expect(first.claim(3 * mib, 1024)).toBeNull()
    expect(first.claim(3 * mib + 512, mib)).toMatch(/two blocks/)
    expect(first.claim(2 * mib - 512, mib)).toMatch(/two blocks/)
  })

  it('finds what is given twice among many and among few', () => {
    const many = new FileClaims(2 ** 40, 65_536, [])
    for (let index = 0; index < 3_000; index++)
      expect(many.claim(index * 65_536, 65_536)).toBeNull()
    for (let index = 0; index < 3_000; index++) {
      expect(many.claim(index * 65_536, 65_536)).toMatch(/two blocks/)
    }
    expect(many.claim(2 ** 40 - 65_536, 65_536)).toBeNull()
    expect(many.claim(2 ** 40 - 65_024, 65_024)).toMatch(/two blocks/)
  })

  it('takes memory for what is claimed, however far apart', () => {
    const apart = new FileClaims(2 ** 52, 512, [])
    const before = process.memoryUsage().arrayBuffers
    for (let index = 0; index < 20_000; index++)
      expect(apart.claim(index * 2 ** 30, 512)).toBeNull()
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 * mib)
  })
})

describe('checkTables', () => {
  const folder = mkdtempSync('/tmp/bf-claims-')
  afterAll(() => rmSync(folder, { recursive: true }))

  it('never takes what a guest wrote into a flat extent for tables', async () => {
    const image = join(folder, 'disk.vmdk')
    const options = 'subformat=monolithicFlat'
    execFileSync('qemu-img', ['create', '-q', '-f', 'vmdk', '-o', options, image, '1M'])
    const flat = join(folder, 'disk-flat.vmdk')
    const bytes = readFileSync(flat)
    bytes.write('KDMV')
    writeFileSync(flat, bytes)
    const probe = await probeImage(image)
    if (probe.kind !== 'readable') throw new Error(probe.problem)
    const layers = await findLayers(image, probe, folder)
    if ('kind' in layers) throw new Error(layers.message)
    const [layer] = layers
    if (!layer) throw new Error('no layer')
    expect([layer.parts, layer.sparseParts]).toEqual([[flat], []])
    await checkTables(layer, AbortSignal.timeout(10_000))
  })
})
