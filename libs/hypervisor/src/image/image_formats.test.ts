import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  appendFile,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newPointId } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Point } from '../driver.ts'
import { FolderDriver } from '../folder/folder_driver.ts'

const signal = () => new AbortController().signal
const run = (program: string, ...args: string[]) =>
  execFileSync(program, args, { stdio: 'pipe', encoding: 'utf8' })
const qemuImg = (...args: string[]) => run('qemu-img', ...args)
const sizeBytes = 24 * 2 ** 20 + 512

let home: string
let folder: string
let driver: FolderDriver

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'bf-formats-'))
  folder = join(home, 'vms', 'a')
  await mkdir(folder, { recursive: true })
  driver = new FolderDriver({
    folder: join(home, 'vms'),
    runFolder: join(home, 'run'),
    tag: 'abcdef',
  })
})

afterEach(async () => {
  await driver[Symbol.asyncDispose]()
  await rm(home, { recursive: true })
})

const begin = (pointId = newPointId()): Promise<Point> =>
  driver.beginPoint(
    {
      ...{ pointId, vmIdentity: 'a', repositoryId: '0'.repeat(32), quiesce: false },
      ...{ bases: [], committedPointIds: [], keptPointIds: [] },
    },
    signal(),
  )

async function refusal(): Promise<{ reason: string; message: string }> {
  const thrown = await begin().then(
    () => null,
    (failure: unknown) => failure,
  )
  if (!(thrown instanceof BackupError)) throw new Error(`not refused: ${String(thrown)}`)
  return { reason: thrown.reason, message: thrown.message }
}

/** A disk with data at both ends, in the middle, and holes between. */
async function makeSource(): Promise<string> {
  const path = join(home, 'source.raw')
  await writeFile(path, '')
  await truncate(path, sizeBytes)
  const file = await open(path, 'r+')
  for (const offset of [0, 5 * 2 ** 20, 13 * 2 ** 20 + 4096, sizeBytes - 70_000]) {
    const bytes = randomBytes(70_000)
    await file.write(bytes, 0, bytes.length, offset)
  }
  await file.close()
  return path
}

interface Format {
  name: string
  driver: string
  options: string
  format: string
}

const formats: Format[] = [
  { name: 'qcow2', driver: 'qcow2', options: '', format: 'qcow2' },
  { name: 'compressed qcow2', driver: 'qcow2', options: '-c', format: 'qcow2' },
  {
    name: 'qcow2 with a data file',
    driver: 'qcow2',
    options: 'data_file=data.bin',
    format: 'qcow2',
  },
  {
    name: 'VMDK monolithicSparse',
    driver: 'vmdk',
    options: 'subformat=monolithicSparse',
    format: 'vmdk',
  },
  {
    name: 'VMDK monolithicFlat',
    driver: 'vmdk',
    options: 'subformat=monolithicFlat',
    format: 'vmdk',
  },
  {
    name: 'VMDK twoGbMaxExtentSparse',
    driver: 'vmdk',
    options: 'subformat=twoGbMaxExtentSparse',
    format: 'vmdk',
  },
  {
    name: 'VMDK twoGbMaxExtentFlat',
    driver: 'vmdk',
    options: 'subformat=twoGbMaxExtentFlat',
    format: 'vmdk',
  },
  {
    name: 'VMDK streamOptimized',
    driver: 'vmdk',
    options: 'subformat=streamOptimized',
    format: 'vmdk',
  },
  { name: 'dynamic VHD', driver: 'vpc', options: 'subformat=dynamic,force_size=on', format: 'vhd' },
  { name: 'fixed VHD', driver: 'vpc', options: 'subformat=fixed,force_size=on', format: 'vhd' },
  {
    name: 'dynamic VHDX',
    driver: 'vhdx',
    options: 'subformat=dynamic,block_size=1M',
    format: 'vhdx',
  },
  { name: 'fixed VHDX', driver: 'vhdx', options: 'subformat=fixed', format: 'vhdx' },
  { name: 'dynamic VDI', driver: 'vdi', options: '', format: 'vdi' },
  { name: 'static VDI', driver: 'vdi', options: 'static=on', format: 'vdi' },
]

/** Converts in the folder; names in options are relative to it. */
function convert(format: Format, source: string, name: string): string {
  const path = join(folder, name)
  const options =
    format.options === '-c'
      ? ['-c']
      : format.options === ''
        ? []
        : ['-o', format.options.replace('data_file=', `data_file=${folder}/`)]
  qemuImg('convert', '-f', 'raw', '-O', format.driver, ...options, source, path)
  return path
}

const formatOf = (name: string): Format => formats.find((one) => one.name === name) as Format

const digest = async (path: string) =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex')

async function copyOf(point: Point): Promise<string> {
  const address = point.disks[0]?.address
  const path = join(home, 'copy.raw')
  if (address?.kind === 'raw') return address.path
  run('nbdcopy', address?.kind === 'nbd' ? address.uri : '', path)
  return path
}

describe('an image of every format', () => {
  it.each(formats)('$name is read byte for byte, whatever its name', async (format) => {
    const source = await makeSource()
    convert(format, source, 'disk.img')
    const [vm] = await driver.inventory(signal())
    expect(vm?.refused).toBe(null)
    expect(vm?.uncovered).toEqual([])
    expect(vm?.disks).toMatchObject([{ id: 'disk.img', format: format.format, sizeBytes }])
    const point = await begin()
    expect(await digest(await copyOf(point))).toBe(await digest(source))
    await driver.confirmPoint(point.pointId, signal())
    await driver.releasePoint(point.pointId, 'committed')
  })

  it.each(formats)('every file of $name is locked, and watched for changes', async (format) => {
    convert(format, await makeSource(), 'disk.img')
    for (const name of await readdir(folder)) {
      const path = join(folder, name)
      const point = await begin()
      expect(() => run('qemu-io', '-f', 'raw', '-c', 'write 0 512', path), name).toThrow(/lock/)
      await appendFile(path, 'x')
      await expect(driver.confirmPoint(point.pointId, signal())).rejects.toMatchObject({
        reason: 'IMAGE_CHANGED',
      })
      await driver.releasePoint(point.pointId, 'dropped')
      await truncate(path, (await stat(path)).size - 1)
    }
  })

  it('reads the active layer of a qcow2 with internal snapshots', async () => {
    const path = convert(formatOf('qcow2'), await makeSource(), 'disk.img')
    qemuImg('snapshot', '-c', 'before', path)
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 7 1M 1M', path)
    const wanted = join(home, 'wanted.raw')
    qemuImg('convert', '-O', 'raw', path, wanted)
    expect(await digest(await copyOf(await begin()))).toBe(await digest(wanted))
  })

  it('reads a qcow2 above a VMDK', async () => {
    const source = await makeSource()
    convert(formatOf('VMDK twoGbMaxExtentSparse'), source, 'base.vmdk')
    const path = join(folder, 'disk.qcow2')
    qemuImg('create', '-q', '-f', 'qcow2', '-F', 'vmdk', '-b', 'base.vmdk', path)
    const point = await begin()
    expect(point.disks.map(({ id }) => id)).toEqual(['disk.qcow2'])
    expect(await digest(await copyOf(point))).toBe(await digest(source))
  })
})

async function patch(path: string, offset: number, bytes: Buffer | string): Promise<void> {
  const file = await open(path, 'r+')
  const buffer = Buffer.from(bytes as string)
  await file.write(
    buffer,
    0,
    buffer.length,
    offset < 0 ? (await file.stat()).size + offset : offset,
  )
  await file.close()
}

const u32le = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value >>> 0)
  return bytes
}

const u64le = (value: bigint) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes
}

const descriptor = (...extents: string[]) =>
  `# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="monolithicFlat"\n\n${extents.join('\n')}\n`

describe('an image that would make us read other files', () => {
  it.each([
    ['a file of the system', 'RW 8 FLAT "/etc/passwd" 0'],
    ['a file above', 'RW 8 FLAT "../secret.raw" 0'],
    ['a device', 'RW 8 FLAT "/dev/zero" 0'],
    ['options of QEMU', 'RW 8 FLAT "json:{}" 0'],
    ['a server', 'RW 8 FLAT "nbd:localhost:10809" 0'],
    ['a file behind a link', 'RW 8 FLAT "link" 0'],
    ['itself', 'RW 1 FLAT "disk.vmdk" 0'],
    ['one file twice', 'RW 8 FLAT "flat" 0\nRW 8 FLAT "flat" 0'],
    ['a pipe', 'RW 8 FLAT "pipe" 0'],
  ])('a VMDK that names %s is refused', async (_, extents) => {
    await writeFile(join(home, 'vms', 'secret.raw'), randomBytes(4096))
    await writeFile(join(folder, 'flat'), randomBytes(4096))
    await symlink('/etc/passwd', join(folder, 'link'))
    run('mkfifo', join(folder, 'pipe'))
    await writeFile(join(folder, 'disk.vmdk'), descriptor(extents))
    const [vm] = await driver.inventory(signal())
    expect(vm?.disks.map(({ id }) => id)).not.toContain('disk.vmdk')
    const { message } = await refusal()
    expect(message).toContain('disk.vmdk')
  })

  it.each([
    'json:{"driver":"null-co"}',
    'nbd:localhost:10809',
    '/etc/passwd',
    '../../secret.raw',
    'link',
  ])('a qcow2 whose data file is %s is refused', async (name) => {
    await symlink('/etc/passwd', join(folder, 'link'))
    const path = convert(formatOf('qcow2 with a data file'), await makeSource(), 'disk.img')
    const head = await readFile(path)
    const at = head.indexOf('ATAD'.split('').reverse().join(''))
    await patch(path, at + 4, Buffer.from([0, 0, 0, name.length, ...Buffer.from(name), 0, 0, 0]))
    const { reason, message } = await refusal()
    expect(message).toContain('disk.img')
    expect(['DISK_FORMAT_UNSUPPORTED', 'VM_WITHOUT_DISKS']).toContain(reason)
  })

  it('a backing file is not followed through a link out of the folder', async () => {
    await writeFile(join(home, 'secret.raw'), randomBytes(4096))
    await symlink(join(home, 'secret.raw'), join(folder, 'base'))
    const path = join(folder, 'disk.qcow2')
    qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'base', path)
    await rm(join(folder, 'base.qcow2'), { force: true })
    expect((await refusal()).message).toContain('outside of the host')
  })

  it('a backing chain in a circle is refused', async () => {
    for (const [name, below] of [
      ['x.qcow2', 'y.qcow2'],
      ['y.qcow2', 'x.qcow2'],
    ]) {
      const options = ['-F', 'qcow2', '-b', below as string, join(folder, name as string), '1M']
      qemuImg('create', '-q', '-u', '-f', 'qcow2', ...options)
    }
    expect((await refusal()).message).toContain('in a circle')
  })
})

describe('an image that lies', () => {
  const cases: [
    name: string,
    format: string,
    lie: (path: string) => Promise<void>,
    says: RegExp,
  ][] = [
    [
      'a VMDK of 8 EiB',
      'VMDK monolithicSparse',
      (path) => patch(path, 12, u64le(2n ** 54n)),
      /sectors/,
    ],
    [
      'a VMDK with grains of 2 TiB',
      'VMDK monolithicSparse',
      (path) => patch(path, 20, u64le(2n ** 32n)),
      /grains/,
    ],
    [
      'a VMDK that is cut off',
      'VMDK monolithicSparse',
      async (path) => truncate(path, (await stat(path)).size - 65_536),
      /cut off/,
    ],
    [
      'a streamOptimized VMDK that is cut off',
      'VMDK streamOptimized',
      async (path) => truncate(path, (await stat(path)).size / 2),
      /cut off/,
    ],
    [
      'a flat extent that is cut off',
      'VMDK monolithicFlat',
      (path) => truncate(path.replace('.img', '-flat.img'), 4096),
      /must hold/,
    ],
    [
      'a VHD whose footer was changed',
      'fixed VHD',
      (path) => patch(path, -512 + 50, 'xxxx'),
      /checksum/,
    ],
    [
      'a VHD whose blocks overlap',
      'dynamic VHD',
      async (path) => {
        const table = await readFile(path)
        const first = table.subarray(1536, 1540)
        await patch(path, 1536 + 4 * 2, first)
      },
      /two blocks/,
    ],
    [
      'a VHD that is cut off',
      'dynamic VHD',
      async (path) => truncate(path, (await stat(path)).size - 2 ** 20),
      /cut off|truncated/,
    ],
    [
      'a VHDX of 8 EiB',
      'dynamic VHDX',
      async (path) => {
        const image = await readFile(path)
        const at = image.indexOf(u64le(BigInt(sizeBytes)), 2 ** 20)
        await patch(path, at, u64le(2n ** 62n))
      },
      /claims/,
    ],
    [
      'a VHDX that is cut off',
      'dynamic VHDX',
      async (path) => truncate(path, (await stat(path)).size - 2 ** 20),
      /cut off|end/,
    ],
    [
      'a VHDX with a block of a state that there is not',
      'dynamic VHDX',
      async (path) => {
        const image = await readFile(path)
        let at = 2 * 2 ** 20
        while (((image[at] ?? 0) & 7) !== 6) at += 8
        await patch(path, at, Buffer.from([((image[at] ?? 0) & ~7) | 4]))
      },
      /a state that there is not/,
    ],
    ['a VDI of 8 EiB', 'dynamic VDI', (path) => patch(path, 368, u64le(2n ** 62n)), /claims/],
    [
      'a VDI with a map of 16 GiB',
      'dynamic VDI',
      (path) => patch(path, 384, u32le(0xffffffff)),
      /TiB/,
    ],
    [
      'a VDI whose blocks overlap',
      'dynamic VDI',
      async (path) => patch(path, 512 + 5 * 4, (await readFile(path)).subarray(512, 516)),
      /two blocks/,
    ],
    [
      'a VDI whose first block lies over its map',
      'dynamic VDI',
      (path) => patch(path, 344, u32le(0)),
      /header or tables/,
    ],
    [
      'a VHD with a block over its table',
      'dynamic VHD',
      (path) => patch(path, 1536, Buffer.from([0, 0, 0, 1])),
      /header or tables/,
    ],
    [
      'a VDI that is cut off',
      'dynamic VDI',
      async (path) => truncate(path, (await stat(path)).size - 2 ** 20),
      /cut off/,
    ],
    [
      'a qcow2 of 8 EiB',
      'qcow2',
      (path) => patch(path, 24, Buffer.from('4000000000000000', 'hex')),
      /claims/,
    ],
    [
      'a qcow2 whose data file is cut off',
      'qcow2 with a data file',
      (path) => truncate(join(path, '../data.bin'), 2 ** 20),
      /must hold/,
    ],
    [
      'a qcow2 whose clusters overlap',
      'qcow2',
      async (path) => {
        const image = await readFile(path)
        const l1 = Number(image.readBigUInt64BE(40))
        const l2 = Number(image.readBigUInt64BE(l1) & 0xfffffffffffe00n)
        await patch(path, l2 + 8 * 80, image.subarray(l2, l2 + 8))
      },
      /check image/,
    ],
  ]
  it.each(cases)('%s is refused with what is wrong', async (_, format, lie, says) => {
    const path = convert(formatOf(format), await makeSource(), 'disk.img')
    await lie(path)
    const { reason, message } = await refusal()
    expect(message).toMatch(says)
    expect(message).toContain('disk')
    expect(['IMAGE_DAMAGED', 'DISK_FORMAT_UNSUPPORTED', 'VM_WITHOUT_DISKS']).toContain(reason)
  })

  it.each([
    ['VDI', 'dynamic VDI', 440, Buffer.alloc(16, 1)],
    ['VMDK', 'VMDK monolithicSparse', 0, null],
  ])('a %s that holds only differences is refused', async (_, format, offset, bytes) => {
    const path = convert(formatOf(format), await makeSource(), 'disk.img')
    if (bytes) await patch(path, offset, bytes)
    else await patch(path, (await readFile(path)).indexOf('parentCID=') + 10, '12345678')
    expect((await refusal()).message).toContain('only the differences')
  })
})

describe('a block device', () => {
  const loop = (): string | null => {
    try {
      return run('losetup', '-f', '--show', join(home, 'backing.img')).trim()
    } catch {
      return null
    }
  }

  it('is read as raw by its path, and watched by what the kernel writes to it', async (context) => {
    const source = await makeSource()
    await writeFile(join(home, 'backing.img'), await readFile(source))
    const device = loop()
    if (device === null) {
      console.warn('SKIPPED: no loop device can be made here')
      return context.skip()
    }
    try {
      await writeFile(join(folder, 'vm.yaml'), `disks: [{file: ${device}, id: root}]`)
      const [vm] = await driver.inventory(signal())
      expect(vm).toMatchObject({
        refused: null,
        disks: [{ id: 'root', format: 'raw', sizeBytes, location: device }],
      })
      const point = await begin()
      expect(point.disks).toMatchObject([{ address: { kind: 'raw', path: device }, sizeBytes }])
      await driver.confirmPoint(point.pointId, signal())
      expect(() => run('qemu-io', '-f', 'raw', '-c', 'write 0 512', device)).toThrow(/lock/)
      run('dd', 'if=/dev/urandom', `of=${device}`, 'bs=4096', 'count=1', 'conv=notrunc')
      await expect(driver.confirmPoint(point.pointId, signal())).rejects.toMatchObject({
        reason: 'IMAGE_CHANGED',
      })
      await driver.releasePoint(point.pointId, 'dropped')
      const file = await open(device, 'r+')
      expect((await refusal()).reason).toBe('IMAGE_IN_USE')
      await file.close()
      await driver.releasePoint((await begin()).pointId, 'dropped')
    } finally {
      run('losetup', '-d', device)
    }
  })

  it('is refused while it is mounted', async (context) => {
    await writeFile(join(home, 'backing.img'), '')
    await truncate(join(home, 'backing.img'), 8 * 2 ** 20)
    const device = loop()
    if (device === null) {
      console.warn('SKIPPED: no loop device can be made here')
      return context.skip()
    }
    const mounted = join(home, 'mounted')
    await mkdir(mounted)
    try {
      run('/sbin/mke2fs', '-q', device)
      run('mount', '-o', 'ro', device, mounted)
      await writeFile(join(folder, 'vm.yaml'), `disks: [{file: ${device}, id: root}]`)
      expect(await refusal()).toMatchObject({ reason: 'IMAGE_IN_USE' })
    } finally {
      run('umount', mounted)
      run('losetup', '-d', device)
    }
  })
})
