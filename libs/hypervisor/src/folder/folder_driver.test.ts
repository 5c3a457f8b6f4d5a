import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  appendFile,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newPointId, randomHex, sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { BeginPoint, Vm } from '../driver.ts'
import { restoreMarkPath } from '../restore_mark.ts'
import { daemonFolder, findStorageDaemons, StorageDaemon } from '../storage_daemon.ts'
import { FolderDriver } from './folder_driver.ts'
import { ImagePoints } from './image_points.ts'
import { assertUnchanged, rememberState } from './image_state.ts'
import { imageVmOfPaths } from './image_vm.ts'

const signal = () => new AbortController().signal
const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { stdio: 'pipe' })

let home: string
let images: string
let runFolder: string
let driver: FolderDriver

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'bf-folder-'))
  images = join(home, 'vms')
  runFolder = join(home, 'run')
  await mkdir(images)
  driver = newDriver()
})

afterEach(async () => {
  await driver[Symbol.asyncDispose]()
  expect(await findStorageDaemons(runFolder)).toEqual([])
  await rm(home, { recursive: true })
})

const newDriver = (tag = 'abcdef') => new FolderDriver({ folder: images, runFolder, tag })

const request = (vmIdentity: string, pointId = newPointId()): BeginPoint => ({
  pointId,
  vmIdentity,
  repositoryId: '0'.repeat(32),
  bases: [],
  committedPointIds: [],
  keptPointIds: [],
  quiesce: false,
})

async function image(path: string, bytes: Buffer | number): Promise<string> {
  const full = join(images, path)
  await mkdir(join(full, '..'), { recursive: true })
  await writeFile(full, typeof bytes === 'number' ? '' : bytes)
  if (typeof bytes === 'number') await truncate(full, bytes)
  return full
}

async function qcow2(path: string, size: string, ...more: string[]): Promise<string> {
  const full = join(images, path)
  await mkdir(join(full, '..'), { recursive: true })
  qemuImg('create', '-q', '-f', 'qcow2', ...more, full, size)
  return full
}

const write = (format: string, path: string, pattern: string, offset: string, size: string) =>
  execFileSync('qemu-io', ['-f', format, '-c', `write -P ${pattern} ${offset} ${size}`, path])

async function only(): Promise<Vm> {
  const vms = await driver.inventory(signal())
  expect(vms).toHaveLength(1)
  return vms[0] as Vm
}

async function failure(work: Promise<unknown>): Promise<BackupError> {
  const thrown = await work.then(
    () => null,
    (error: unknown) => error,
  )
  expect(thrown).toBeInstanceOf(BackupError)
  return thrown as BackupError
}

async function expectNothingLeft(): Promise<void> {
  expect(await driver.findPoints(signal())).toEqual([])
  expect(await findStorageDaemons(runFolder)).toEqual([])
  expect(await readdir(runFolder).catch(() => [])).toEqual([])
}

describe('inventory of a folder', () => {
  it('takes every sub-folder with images as a VM, whatever its name', async () => {
    await image('plain/a.raw', 512)
    await image('日本\nnew line/disk.img', 1_000_001)
    await mkdir(join(images, 'empty'))
    const vms = await driver.inventory(signal())
    expect(vms.map((vm) => vm.name)).toEqual(['plain', '日本\nnew line'])
    expect(vms[1]?.disks).toMatchObject([{ id: 'disk.img', format: 'raw', sizeBytes: 1_000_001 }])
  })

  it('reads identity, name, disks and formats from the YAML', async () => {
    await qcow2('web/root.qcow2', '8M')
    await image('web/other.raw', 512)
    await writeFile(
      join(images, 'web', 'vm.yaml'),
      'id: web-1\nname: Web / server\ndisks:\n  - {file: root.qcow2, id: root, format: qcow2}\n',
    )
    expect(await only()).toMatchObject({
      identity: 'web-1',
      name: 'Web / server',
      disks: [{ id: 'root', format: 'qcow2', sizeBytes: 8 * 2 ** 20 }],
      refused: null,
    })
  })

  it('takes a YAML file in the folder itself as a VM', async () => {
    await image('pool/a.raw', 4096)
    await writeFile(join(images, 'db.yaml'), 'disks: [{file: pool/a.raw}]')
    const vms = await driver.inventory(signal())
    expect(vms.map((vm) => vm.identity)).toEqual(['db', 'pool'])
  })

  it('refuses a format that the image contradicts', async () => {
    await qcow2('a/d.img', '1M')
    await writeFile(join(images, 'a', 'vm.yaml'), 'disks: [{file: d.img, format: vmdk}]')
    expect((await only()).refused).toMatchObject({ reason: 'IMAGE_FORMAT_WRONG' })
    expect((await failure(driver.beginPoint(request('a'), signal()))).reason).toBe(
      'IMAGE_FORMAT_WRONG',
    )
  })

  it('reads a disk that is said to be raw as it is, whatever the guest wrote to its start', async () => {
    const luks = Buffer.alloc(4096)
    luks.write('LUKS\xba\xbe', 'latin1')
    await image('a/d.img', 4096)
    await writeFile(join(images, 'a', 'd.img'), luks)
    await writeFile(join(images, 'a', 'vm.yaml'), 'disks: [{file: d.img, format: raw}]')
    const vm = await only()
    expect([vm.refused, vm.uncovered]).toEqual([null, []])
    expect(vm.disks).toMatchObject([{ format: 'raw', sizeBytes: 4096 }])
  })

  it('reports an image of a format that it cannot read as uncovered', async () => {
    await image('a/ok.raw', 512)
    qemuImg('create', '-q', '-f', 'qed', join(images, 'a', 'other.bin'), '4M')
    const vm = await only()
    expect(vm.disks.map((disk) => disk.id)).toEqual(['ok.raw'])
    expect(vm.uncovered).toMatchObject([{ id: 'other.bin', reason: 'DISK_FORMAT_UNSUPPORTED' }])
  })

  it('reports a large file that it does not know', async () => {
    await image('a/ok.raw', 512)
    await image('a/mystery', 2 * 2 ** 20)
    await image('a/readme.txt', 100)
    expect((await only()).uncovered.map((disk) => disk.id)).toEqual(['mystery'])
  })

  it('refuses YAML that cannot be meant', async () => {
    await image('a/ok.raw', 512)
    for (const text of ['a: [', 'dsiks: []', 'disks: 7', 'stop_timeout_seconds: -1', '- 1']) {
      await writeFile(join(images, 'a', 'vm.yaml'), text)
      expect((await only()).refused, text).toMatchObject({ reason: 'ARGUMENT_INVALID' })
    }
  })

  it('refuses two VMs of one identity and two disks of one id', async () => {
    await image('a/x.raw', 512)
    await image('b/x.raw', 512)
    await writeFile(join(images, 'b', 'vm.yaml'), 'id: a')
    const duplicates = await driver.inventory(signal())
    expect(duplicates.map((vm) => vm.refused?.reason)).toEqual(Array(2).fill('VM_UUID_DUPLICATE'))
    await writeFile(
      join(images, 'b', 'vm.yaml'),
      'disks: [{file: x.raw, id: q}, {file: ../a/x.raw, id: q}]',
    )
    const b = (await driver.inventory(signal())).find((vm) => vm.identity === 'b')
    expect(b?.refused).toMatchObject({ reason: 'DISK_ID_DUPLICATE' })
  })

  it('refuses a disk whose file name cannot be an id, and takes it under one from the YAML', async () => {
    await image('a/d\n1.raw', 512)
    const { refused } = await only()
    expect(refused).toMatchObject({ reason: 'ARGUMENT_INVALID' })
    expect(refused?.message).toContain('give it an "id"')
    await writeFile(join(images, 'a', 'vm.yaml'), 'disks: [{file: "d\\n1.raw", id: one}]')
    expect(await only()).toMatchObject({ refused: null, disks: [{ id: 'one' }] })
  })

  it('never follows a backing file out of the folder', async () => {
    await writeFile(join(home, 'secret.raw'), randomHex(512))
    await qcow2('a/d.qcow2', '1M', '-F', 'raw', '-b', join(home, 'secret.raw'))
    const vm = await only()
    expect(vm.disks).toEqual([])
    expect(vm.uncovered[0]?.message).toContain('outside of the host')
    expect((await failure(driver.beginPoint(request('a'), signal()))).reason).toBe(
      'VM_WITHOUT_DISKS',
    )
  })

  it.each(['raw', 'qcow2'])(
    'refuses a half restored %s image, and still lists it',
    async (format) => {
      const path = format === 'raw' ? await image('a/d.raw', 4096) : await qcow2('a/d.qcow2', '1M')
      await symlink(path, join(images, 'a', '..', 'link'))
      await writeFile(restoreMarkPath(path), '{"backup": "20261123-071500-4f2a9c"}')
      const vm = await only()
      expect(vm.disks).toMatchObject([{ format, location: path }])
      expect(vm.uncovered).toEqual([])
      expect(vm.refused?.reason).toBe('RESTORE_INCOMPLETE')
      expect(vm.refused?.message).toContain('20261123-071500-4f2a9c')
      const begun = failure(driver.beginPoint(request('a'), signal()))
      expect((await begun).reason).toBe('RESTORE_INCOMPLETE')
      // Also when the image is named, and through a link.
      const link = join(images, 'link')
      const named = failure(driver.beginPointOfImages(request('x'), [link], signal()))
      expect((await named).reason).toBe('RESTORE_INCOMPLETE')
      await rm(restoreMarkPath(path))
      expect((await only()).refused).toBe(null)
      await expectNothingLeft()
    },
  )

  it('refuses an overlay of a half restored image, whatever the mark says', async () => {
    const below = await qcow2('a/below.qcow2', '1M')
    await qcow2('a/top.qcow2', '1M', '-F', 'qcow2', '-b', below)
    for (const text of ['', '{', 'null', '{"backup": "\\u001b[2J"}', '{"backup": 7}']) {
      await writeFile(restoreMarkPath(below), text)
      const vm = await only()
      expect(vm.refused?.reason).toBe('RESTORE_INCOMPLETE')
      expect(vm.refused?.message).toContain('of the backup that')
    }
    await rm(restoreMarkPath(below))
    execFileSync('mkfifo', [restoreMarkPath(below)])
    expect((await only()).refused?.reason).toBe('RESTORE_INCOMPLETE')
  })

  it('says that a folder is not there', async () => {
    await rm(images, { recursive: true })
    expect((await failure(driver.inventory(signal()))).reason).toBe('HOST_UNREACHABLE')
  })
})

describe('point over images', () => {
  it('gives raw images directly, zero bytes and odd sizes included', async () => {
    await image('a/empty.raw', 0)
    await image('a/odd.raw', 2 ** 20 + 512)
    const point = await driver.beginPoint(request('a'), signal())
    expect(point.consistency).toBe('off')
    expect(point.decisions.map((note) => note.decision)).toContain('MACHINE_OFF')
    expect(point.disks).toMatchObject([
      { sizeBytes: 0, address: { kind: 'raw', path: join(images, 'a/empty.raw') } },
      { sizeBytes: 2 ** 20 + 512, address: { kind: 'raw' }, changedContext: null },
    ])
    await driver.confirmPoint(point.pointId, signal())
    await driver.releasePoint(point.pointId, 'committed')
    await expectNothingLeft()
  })

  it('shows a qcow2 with its backing file byte for byte over NBD', async () => {
    const base = await image('a/base.raw', 8 * 2 ** 20)
    write('raw', base, '0x11', '0', '3M')
    const top = await qcow2('a/top.qcow2', '8M', '-F', 'raw', '-b', 'base.raw')
    write('qcow2', top, '0x22', '1M', '64k')
    const point = await driver.beginPoint(request('a'), signal())
    expect(point.disks.map((disk) => disk.id)).toEqual(['top.qcow2'])
    expect(point.disks[0]?.decisions[0]?.message).toContain('base.raw')
    const address = point.disks[0]?.address
    const uri = address?.kind === 'nbd' ? address.uri : ''
    const copy = join(home, 'copy.raw')
    execFileSync('nbdcopy', [uri, copy])
    const wanted = join(home, 'wanted.raw')
    qemuImg('convert', '-U', '-O', 'raw', top, wanted)
    expect(await digest(copy)).toBe(await digest(wanted))
    await driver.confirmPoint(point.pointId, signal())
    await driver.releasePoint(point.pointId, 'committed')
  })

  it('answers the same point again for the same id, and VM_BUSY with its owner for another', async () => {
    await image('a/d.raw', 4096)
    const first = await driver.beginPoint(request('a'), signal())
    expect(await driver.beginPoint(request('a', first.pointId), signal())).toEqual(first)
    const busy = await failure(driver.beginPoint(request('a'), signal()))
    expect(busy).toMatchObject({ reason: 'VM_BUSY', metadata: { owner: first.pointId } })
    const other = newDriver('123456')
    const theirs = await failure(other.beginPoint(request('a'), signal()))
    expect(theirs).toMatchObject({ reason: 'VM_BUSY', metadata: { installation: 'abcdef' } })
    expect(await other.findPoints(signal())).toMatchObject([{ ours: false }])
    await other.releasePoint(first.pointId, 'dropped')
    await driver.confirmPoint(first.pointId, signal())
  })

  it.each(['raw', 'qcow2'])('refuses a %s image that QEMU holds', async (format) => {
    const path = format === 'raw' ? await image('a/d.raw', 2 ** 20) : await qcow2('a/d.raw', '1M')
    {
      await using _holder = await holdImage(format, path)
      expect((await failure(driver.beginPoint(request('a'), signal()))).reason).toBe('IMAGE_IN_USE')
    }
    await expectNothingLeft()
    const point = await driver.beginPoint(request('a'), signal())
    await driver.releasePoint(point.pointId, 'dropped')
  })

  it('refuses an image that a program without locks has open for writing', async () => {
    const path = await image('a/d.raw', 4096)
    const file = await open(path, 'r+')
    try {
      const refused = await failure(driver.beginPoint(request('a'), signal()))
      expect(refused.reason).toBe('IMAGE_IN_USE')
      expect(refused.message).toContain(String(process.pid))
    } finally {
      await file.close()
    }
    await expectNothingLeft()
  })

  it.each(['raw', 'qcow2'])('keeps QEMU from writing to a %s while it is read', async (format) => {
    const path = format === 'raw' ? await image('a/d', 2 ** 20) : await qcow2('a/d', '1M')
    await writeFile(join(images, 'a/vm.yaml'), 'disks: [{file: d}]')
    const point = await driver.beginPoint(request('a'), signal())
    expect(() =>
      execFileSync('qemu-io', ['-f', format, '-c', 'write 0 512', path], { stdio: 'pipe' }),
    ).toThrow(/lock/)
    await driver.confirmPoint(point.pointId, signal())
    await driver.releasePoint(point.pointId, 'dropped')
    write(format, path, '1', '0', '512')
  })

  it('finds every change to an image while it is read', async () => {
    const path = await image('a/d.raw', 2 ** 20)
    const changes: Record<string, () => Promise<unknown>> = {
      written: () => writeAt(path, 5, 'x'),
      grown: () => appendFile(path, 'x'),
      'cut off': () => truncate(path, 512),
      replaced: async () => {
        await writeFile(`${path}.new`, await readFile(path))
        await rename(`${path}.new`, path)
      },
      'written with its time put back': async () => {
        await writeAt(path, 5, 'y')
        await utimes(path, 1, 1)
      },
      gone: () => rm(path),
    }
    for (const [name, change] of Object.entries(changes)) {
      await utimes(path, 1, 1)
      const point = await driver.beginPoint(request('a'), signal())
      await driver.confirmPoint(point.pointId, signal())
      await change()
      const changed = await failure(driver.confirmPoint(point.pointId, signal()))
      expect(changed.reason, name).toBe('IMAGE_CHANGED')
      await driver.releasePoint(point.pointId, 'dropped')
    }
  })

  it('notices a write right after the state of an image was remembered', async () => {
    const path = await image('a/d.raw', 4096)
    for (let round = 0; round < 20; round++) {
      await writeAt(path, 0, String(round))
      const state = await rememberState(path, signal())
      await writeAt(path, 1, String(round))
      expect((await failure(assertUnchanged(state))).reason).toBe('IMAGE_CHANGED')
    }
  })

  it('finds a change to a backing file', async () => {
    const base = await image('a/base.raw', 2 ** 20)
    await qcow2('a/top.qcow2', '1M', '-F', 'raw', '-b', 'base.raw')
    const point = await driver.beginPoint(request('a'), signal())
    await writeAt(base, 7, 'x')
    expect((await failure(driver.confirmPoint(point.pointId, signal()))).reason).toBe(
      'IMAGE_CHANGED',
    )
  })

  it('refuses a cut-off qcow2 and one with a header that lies', async () => {
    const path = await qcow2('a/d.qcow2', '64M')
    write('qcow2', path, '7', '0', '20M')
    await truncate(path, 10 * 2 ** 20)
    expect((await failure(driver.beginPoint(request('a'), signal()))).reason).toBe('IMAGE_DAMAGED')
    await expectNothingLeft()
    await truncate(path, 100)
    expect((await only()).refused).toMatchObject({ reason: 'IMAGE_DAMAGED' })
    expect((await failure(driver.beginPoint(request('a'), signal()))).reason).toBe('IMAGE_DAMAGED')
  })

  it('reads no image that became an overlay of itself since it was looked at', async () => {
    const path = await qcow2('a/d.qcow2', '8M')
    write('qcow2', path, '0x11', '0', '3M')
    const points = new ImagePoints({ runFolder, tag: 'abcdef' })
    const find = async () => {
      const vm = await imageVmOfPaths('a', [path])
      await rename(path, `${path}.below`)
      await qcow2('a/d.qcow2', '8M', '-F', 'qcow2', '-b', `${path}.below`)
      return vm
    }
    const begun = failure(points.begin(request('a'), find, signal()))
    expect(await begun).toMatchObject({ reason: 'IMAGE_CHANGED', metadata: { path } })
    await expectNothingLeft()
  })

  it('names a VM, an image and a backing file that are not there', async () => {
    await image('a/d.raw', 512)
    expect((await failure(driver.beginPoint(request('nope'), signal()))).reason).toBe(
      'VM_NOT_FOUND',
    )
    await symlink('/nowhere/x.raw', join(images, 'a', 'e.raw'))
    expect((await failure(driver.beginPoint(request('a'), signal()))).reason).toBe('IMAGE_MISSING')
    await rm(join(images, 'a', 'e.raw'))
    const base = await image('a/base.raw', 2 ** 20)
    await qcow2('a/top.qcow2', '1M', '-F', 'raw', '-b', 'base.raw')
    await rm(base)
    expect((await failure(driver.beginPoint(request('a'), signal()))).reason).toBe('IMAGE_MISSING')
  })

  it('leaves nothing behind when it is cancelled', async () => {
    await qcow2('a/d.qcow2', '8M')
    const abort = new AbortController()
    const begun = driver.beginPoint(request('a'), abort.signal)
    await sleep(15)
    abort.abort()
    await expect(begun).rejects.toThrow()
    await expectNothingLeft()
  })

  it('says of every disk what became of it since the base', async () => {
    await image('a/same.raw', 1024)
    await image('a/grown.raw', 2048)
    await image('a/new.raw', 512)
    await image('a/what', 2 ** 21)
    const disks = [
      { id: 'same.raw', sizeBytes: 1024 },
      { id: 'grown.raw', sizeBytes: 1024 },
      { id: 'gone.raw', sizeBytes: 1024 },
    ]
    const bases = [{ backupId: 'backup-1', pointId: newPointId(), disks }]
    const point = await driver.beginPoint({ ...request('a'), bases }, signal())
    const told = point.disks.map(({ id, decisions }) => [id, decisions[0]?.decision])
    expect(told).toEqual([
      ['grown.raw', 'DISK_RESIZED'],
      ['new.raw', 'DISK_ADDED'],
      ['same.raw', 'CHANGE_TRACKING_UNSUPPORTED'],
    ])
    const about = point.decisions.map((note) => note.decision)
    expect(about).toEqual(['MACHINE_OFF', 'DISK_NOT_COVERED', 'DISK_GONE'])
  })

  it('takes images that a caller names as one machine', async () => {
    const path = await image('loose.img', 4096)
    const point = await driver.beginPointOfImages(request('my/vm'), [path], signal())
    expect(point.vm).toMatchObject({ identity: 'my/vm', disks: [{ id: 'loose.img' }] })
    await driver.releasePoint(point.pointId, 'committed')
    const relative = driver.beginPointOfImages(request('x'), ['loose.img'], signal())
    expect((await failure(relative)).reason).toBe('ARGUMENT_INVALID')
  })
})

describe('hooks of a folder VM', () => {
  const hooks = async (stop: string, start: string, more = '') => {
    await image('a/d.raw', 4096)
    const text = `stop: ${JSON.stringify(stop)}\nstart: ${JSON.stringify(start)}\n${more}`
    await writeFile(join(images, 'a', 'vm.yaml'), text)
  }
  const journal = () => readFile(join(home, 'journal'), 'utf8').catch(() => '')
  const say = (word: string) => `echo ${word} >> ${join(home, 'journal')}`

  it('stops the VM before and starts it once afterwards', async () => {
    await hooks(say('stop'), say('start'))
    const point = await driver.beginPoint(request('a'), signal())
    expect(await journal()).toBe('stop\n')
    const release = () => driver.releasePoint(point.pointId, 'committed')
    await Promise.all([release(), release()])
    await release()
    expect(await journal()).toBe('stop\nstart\n')
    await expectNothingLeft()
  })

  it('starts the VM again when the stop hook fails or hangs', async () => {
    await hooks(`${say('stop')}; echo cannot reach guest >&2; exit 3`, say('start'))
    const failed = await failure(driver.beginPoint(request('a'), signal()))
    expect(failed).toMatchObject({
      reason: 'HOOK_FAILED',
      metadata: { output: 'cannot reach guest' },
    })
    expect(await journal()).toBe('stop\nstart\n')
    await hooks('sleep 1000', say('again'), 'stop_timeout_seconds: 0.2')
    const late = await failure(driver.beginPoint(request('a'), signal()))
    expect(late.message).toContain('no end in 0.2 s')
    expect(await journal()).toBe('stop\nstart\nagain\n')
    await expectNothingLeft()
  })

  it('starts the VM again when the image is in use after the stop', async () => {
    await hooks(say('stop'), say('start'))
    const file = await open(join(images, 'a', 'd.raw'), 'r+')
    expect((await failure(driver.beginPoint(request('a'), signal()))).reason).toBe('IMAGE_IN_USE')
    await file.close()
    expect(await journal()).toBe('stop\nstart\n')
  })

  it('lets a later process start the VM after the first one was killed', async () => {
    await hooks(say('stop'), say('start'))
    const pointId = newPointId()
    const child = await beginInChild(pointId)
    process.kill(child, 'SIGKILL')
    await waitFor(async () => (await findStorageDaemons(runFolder)).length === 0)
    expect(await driver.findPoints(signal())).toMatchObject([{ pointId, vmName: 'a', ours: true }])
    expect((await failure(driver.confirmPoint(pointId, signal()))).reason).toBe('POINT_LOST')
    expect((await failure(driver.beginPoint(request('a', pointId), signal()))).reason).toBe(
      'POINT_LOST',
    )
    expect((await failure(driver.beginPoint(request('a'), signal()))).reason).toBe('VM_BUSY')
    expect(await journal()).toBe('stop\n')
    await driver.releasePoint(pointId, 'dropped')
    await driver.releasePoint(pointId, 'dropped')
    expect(await journal()).toBe('stop\nstart\n')
    await expectNothingLeft()
  })

  it('keeps the point listed while the machine cannot be started', async () => {
    await hooks(say('stop'), `test -e ${join(home, 'mended')} && ${say('start')}`)
    const point = await driver.beginPoint(request('a'), signal())
    const release = () => driver.releasePoint(point.pointId, 'dropped')
    expect((await failure(release())).reason).toBe('HOOK_FAILED')
    expect(await driver.findPoints(signal())).toHaveLength(1)
    await writeFile(join(home, 'mended'), '')
    await release()
    expect(await journal()).toBe('stop\nstart\n')
    await expectNothingLeft()
  })
})

describe('storage daemon', () => {
  it('saves a bitmap when it is closed', async () => {
    const path = await qcow2('a/d.qcow2', '8M')
    const daemon = await StorageDaemon.start({
      folder: daemonFolder(runFolder, 'abcdef', newPointId()),
    })
    const layer = {
      path,
      format: 'qcow2',
      sizeBytes: 0,
      isDevice: false,
      isPlain: false,
      parts: [],
    } as const
    await daemon.openImage({
      nodeName: 'n',
      layers: [{ ...layer, parts: [], sparseParts: [] }],
      writable: true,
    })
    const bitmap = { node: 'n', name: 'b', persistent: true }
    await daemon.qmp.execute('block-dirty-bitmap-add', bitmap)
    await daemon.close()
    expect(qemuImg('info', path).toString()).toContain('name: b')
    await expectNothingLeft()
  })

  it.each([
    ['fixed VHD', 'vpc', 'subformat=fixed,force_size=on'],
    ['dynamic VHD', 'vpc', 'subformat=dynamic,force_size=on'],
    ['VHDX', 'vhdx', 'subformat=dynamic'],
    ['VDI', 'vdi', 'static=off'],
    ['VMDK', 'vmdk', 'subformat=monolithicSparse'],
  ])('shares a %s that it writes with no other writer', async (_, driver, options) => {
    const path = join(images, 'd')
    qemuImg('create', '-q', '-f', driver, '-o', options, path, '8M')
    const { disks } = await imageVmOfPaths('x', [path])
    const node = { nodeName: 'n', layers: disks[0]?.layers ?? [], writable: true }
    const folder = () => daemonFolder(runFolder, 'abcdef', newPointId())
    await using daemon = await StorageDaemon.start({ folder: folder() })
    await daemon.openImage(node)
    await using other = await StorageDaemon.start({ folder: folder() })
    await expect(other.openImage(node)).rejects.toThrow(/lock/)
    await expect(other.lockFile('l', path, false)).rejects.toThrow(/lock/)
  })
})

/** Somebody who holds QEMU's lock on an image; gone at the end of the block, also of a failed test. */
async function holdImage(format: string, path: string): Promise<AsyncDisposable> {
  const holder = spawn('qemu-io', ['-f', format, path], { stdio: ['pipe', 'pipe', 'ignore'] })
  holder.stdin.write('write 0 512\n')
  await once(holder.stdout, 'data')
  return {
    async [Symbol.asyncDispose]() {
      if (holder.exitCode === null) holder.kill('SIGKILL')
      await once(holder, 'exit')
    },
  }
}

async function beginInChild(pointId: string): Promise<number> {
  const program = `
    import { FolderDriver } from ${JSON.stringify(join(import.meta.dirname, 'folder_driver.ts'))}
    const driver = new FolderDriver(${JSON.stringify({ folder: images, runFolder, tag: 'abcdef' })})
    await driver.beginPoint(${JSON.stringify(request('a', pointId))}, new AbortController().signal)
    console.log('begun')`
  const child = spawn(
    process.execPath,
    ['--conditions=@blockferry/source', '--input-type=module', '-e', program],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  await once(child.stdout, 'data')
  return child.pid as number
}

async function writeAt(path: string, position: number, text: string): Promise<void> {
  const file = await open(path, 'r+')
  await file.write(text, position)
  await file.close()
}

async function waitFor(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    if (await condition()) return
    await sleep(50)
  }
  expect.unreachable('the condition did not come true in 5 s')
}

const digest = async (path: string) =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex')
