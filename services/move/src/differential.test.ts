import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import {
  chmod,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rmdir,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { sleep } from '@blockferry/core'
import { asBackupError, type BackupError } from '@blockferry/errors'
import {
  bitmapName,
  restoreIncomplete,
  restoreMarkPath,
  StorageDaemon,
} from '@blockferry/hypervisor'
import { lockImage } from '@blockferry/native'
import { move } from '@blockferry/proto'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { isIdentical, MoveStand, run } from './move_stand.ts'

const { DONE, FAILED } = move.Session_State
const { RAW, QCOW2, VMDK, VHD, VHDX, VDI } = move.ImageFormat
const mib = 1024 * 1024
const size = 48 * mib
const isRoot = process.getuid?.() === 0

let stand: MoveStand
/** The disk as it was backed up, and the backup. */
let wanted: string
let backup: string
let pointId: string
let count = 0

beforeAll(async () => {
  stand = await MoveStand.start()
  wanted = await stand.raw('wanted.raw', size, [
    { offset: 0, size: 20 * mib, seed: 1 },
    { offset: 30 * mib, size: 9 * mib, seed: 2 },
  ])
  const request = stand.request([
    {
      disk: 'vda',
      sizeBytes: BigInt(size),
      address: { $case: 'rawPath', value: wanted },
    },
  ])
  backup = (await stand.backup(request)).name
  pointId = request.point?.pointId ?? ''
})
afterEach(async () => {
  // Nothing of a session that has ended is left: no socket, no daemon.
  expect(await readdir(stand.path('run'))).toEqual([])
})
afterAll(async () => {
  await stand[Symbol.asyncDispose]()
})

/** The disk a day later: some pages written, some files new where there was a hole. */
async function aged(format: string, folder = stand.folder, options = ''): Promise<string> {
  const path = join(folder, `aged-${++count}.${format}`)
  const withOptions = options === '' ? [] : ['-o', options]
  await run('qemu-img', ['convert', '-f', 'raw', '-O', format, ...withOptions, wanted, path])
  const changes = ['12k 4k', '1M 128k', '25M 300k', '31M 4k', '47M 1M'].flatMap((place) => [
    '-c',
    `write -P 0x77 ${place}`,
  ])
  await run('qemu-io', ['-f', format, ...changes, '-c', 'write -z 5M 64k', path])
  return path
}
/** What of it differs, in whole pages: some were changed to what they were, none here. */
const differing = (4 + 128 + 300 + 4 + 1024 + 64) * 1024

const restore = (targetPath: string, format: move.ImageFormat, sessionId?: string) =>
  stand.restore(backup, [{ disk: 'vda', targetPath, format, replace: true }], {
    differential: true,
    ...(sessionId === undefined ? {} : { sessionId }),
  })

async function begin(targetPath: string, format: move.ImageFormat, sessionId: string) {
  await stand.calls.startRestore({
    sessionId,
    folder: stand.repository,
    backupId: backup.replace('backups/', ''),
    disks: [{ disk: 'vda', targetPath, format, replace: true }],
    startScriptPath: '',
    differential: true,
  })
}

const bitmapsOf = async (path: string): Promise<{ name: string; flags: string[] }[]> => {
  const { stdout } = await run('qemu-img', ['info', '--output=json', path])
  return JSON.parse(stdout)['format-specific'].data.bitmaps ?? []
}

/** It may have ended since it was listed. */
function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown
  }
}

describe('differential restore', () => {
  for (const [name, driver, options, format] of [
    ['VMDK', 'vmdk', 'subformat=monolithicSparse', VMDK],
    ['dynamic VHD', 'vpc', 'subformat=dynamic,force_size=on', VHD],
    ['fixed VHD', 'vpc', 'subformat=fixed,force_size=on', VHD],
    ['VHDX', 'vhdx', '', VHDX],
    ['VDI', 'vdi', '', VDI],
  ] as const) {
    it(`writes into a ${name} image just what differs`, async () => {
      const path = await aged(driver, stand.folder, options)
      const session = await restore(path, format)
      expect(session.errorMessage).toBe('')
      expect(Number(session.disks[0]?.storedBytes)).toBe(differing)
      expect(await isIdentical(wanted, path, driver)).toBe(true)
      expect(existsSync(restoreMarkPath(path))).toBe(false)
      expect(Number((await restore(path, format)).disks[0]?.storedBytes)).toBe(0)
    })
  }

  it.each([
    ['monolithicFlat', 'in other files (monolithicFlat-flat.vmdk'],
    ['streamOptimized', 'its data is compressed'],
  ])('refuses a VMDK of type %s before it is marked', async (type, why) => {
    const path = stand.path(`${type}.vmdk`)
    const options = ['-o', `subformat=${type}`]
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'vmdk', ...options, wanted, path])
    const session = await restore(path, VMDK)
    expect(session).toMatchObject({ state: FAILED, errorReason: 'DISK_FORMAT_UNSUPPORTED' })
    expect(session.errorMessage.replaceAll(`${stand.folder}/`, '')).toContain(why)
    expect(existsSync(restoreMarkPath(path))).toBe(false)
  })

  for (const [name, format] of [
    ['raw', RAW],
    ['qcow2', QCOW2],
  ] as const) {
    it(`writes into a ${name} image just what differs`, async () => {
      const path = await aged(name)
      await chmod(path, 0o640)
      const { ino } = await stat(path)
      const link = stand.path(`link-${count}`)
      await symlink(path, link)
      const session = await restore(link, format)
      expect(session.errorMessage).toBe('')
      expect(session.disks[0]).toMatchObject({ targetPath: path, keptPath: '', done: true })
      expect(Number(session.disks[0]?.storedBytes)).toBe(differing)
      expect(Number(session.disks[0]?.comparedBytes)).toBeLessThan(size)
      expect(await isIdentical(wanted, path, name)).toBe(true)
      expect(existsSync(restoreMarkPath(path))).toBe(false)
      expect(await stat(path)).toMatchObject({ ino, mode: 0o100640 })
      if (name === 'qcow2') await run('qemu-img', ['check', '-q', path])
      const again = await restore(path, format)
      expect(Number(again.disks[0]?.storedBytes)).toBe(0)
    })

    it(`refuses a ${name} image that another process has open, and touches nothing`, async () => {
      const path = await aged(name)
      const before = await readFile(path)
      const socket = stand.path(`busy-${name}.sock`)
      const busy = spawn('qemu-nbd', ['-t', '-f', name, '-k', socket, path])
      while (!existsSync(socket)) await sleep(5)
      await run('nbdinfo', ['--size', `nbd+unix:///?socket=${socket}`])
      try {
        const session = await restore(path, format)
        expect(session).toMatchObject({ state: FAILED, errorReason: 'TARGET_IN_USE' })
        expect(session.errorMessage).toContain(path)
      } finally {
        await end(busy)
      }
      expect(existsSync(restoreMarkPath(path))).toBe(false)
      expect((await readFile(path)).equals(before)).toBe(true)
    })

    it(`leaves a cancelled ${name} image marked, and finishes it another time`, async () => {
      const path = await aged(name)
      const sessionId = `cancel-${name}`
      await begin(path, format, sessionId)
      while (!existsSync(restoreMarkPath(path))) await sleep(1)
      await stand.calls.cancelSession({ name: `sessions/${sessionId}` })
      const { session } = await stand.calls.getSession({ name: `sessions/${sessionId}` })
      // It may have been faster.
      if (session?.state === FAILED) {
        const mark = JSON.parse(await readFile(restoreMarkPath(path), 'utf8'))
        expect(mark).toMatchObject({ state: 'RESTORE_INCOMPLETE', session: sessionId, disk: 'vda' })
        expect(mark.what_to_do).toContain(backup.replace('backups/', ''))
        expect((await restoreIncomplete(path))?.message).toContain('run it again')
      }
      expect((await restore(path, format)).errorMessage).toBe('')
      expect(await isIdentical(wanted, path, name)).toBe(true)
      expect(await restoreIncomplete(path)).toBe(null)
    })

    it.runIf(isRoot)(`says that the file system of a ${name} image is full`, async () => {
      const small = stand.path(`small-${name}`)
      await mkdir(small)
      await run('mount', ['-t', 'tmpfs', '-o', 'size=48m', 'tmpfs', small])
      try {
        const path = join(small, `disk.${name}`)
        await run('qemu-img', ['create', '-q', '-f', name, path, String(size)])
        const ballast = await open(join(small, 'ballast'), 'w')
        await ballast.writeFile(Buffer.alloc(30 * mib))
        await ballast.close()
        const session = await restore(path, format)
        expect(session).toMatchObject({ state: FAILED, errorReason: 'TARGET_FULL' })
        expect(session.errorMessage).toMatch(/half restored and marked.*same restore again/)
        expect(existsSync(restoreMarkPath(path))).toBe(true)
        await run('rm', [join(small, 'ballast')])
        expect((await restore(path, format)).errorMessage).toBe('')
        expect(await isIdentical(wanted, path, name)).toBe(true)
        expect(await readdir(small)).toEqual([`disk.${name}`])
      } finally {
        await run('umount', [small])
      }
    })

    it(`lets a restore of a whole image end the state of a ${name} one`, async () => {
      const path = await aged(name)
      const old = await readFile(path)
      await run('sh', ['-c', 'echo "{}" > "$1"', 'sh', restoreMarkPath(path)])
      const disk = { disk: 'vda', targetPath: path, format, replace: true }
      const session = await stand.restore(backup, [disk])
      expect(session.errorMessage).toBe('')
      expect(await isIdentical(wanted, path, name)).toBe(true)
      expect(await restoreIncomplete(path)).toBe(null)
      // The old image takes its mark along: it is as half restored as before.
      const kept = session.disks[0]?.keptPath ?? ''
      expect((await readFile(kept)).equals(old)).toBe(true)
      expect((await restoreIncomplete(kept))?.reason).toBe('RESTORE_INCOMPLETE')
    })
  }

  it.each([
    ['qcow2', QCOW2],
    ['vmdk', VMDK],
    ['vpc', VHD],
    ['vhdx', VHDX],
    ['vdi', VDI],
  ])(
    'fails when the storage daemon of a %s image is killed, and goes on',
    async (driver, format) => {
      const options = driver === 'vpc' ? 'force_size=on' : ''
      const path = await aged(driver, stand.folder, options)
      // Much to do, so that the kill comes into the middle.
      await run('qemu-io', ['-f', driver, '-c', 'write -P 0x11 0 48M', path])
      const sessionId = `daemon-${driver}`
      await begin(path, format, sessionId)
      while (!existsSync(restoreMarkPath(path))) await sleep(1)
      for (const pid of await daemonsOf(stand.path('run'))) killIfThere(pid)
      const session = await stand.until(sessionId, DONE, FAILED)
      if (session.state === FAILED) {
        expect(session.errorReason).toBe('TARGET_WRITE_FAILED')
        expect((await restoreIncomplete(path))?.message).toContain(backup.replace('backups/', ''))
      }
      expect((await restore(path, format, sessionId)).errorMessage).toBe('')
      expect(await isIdentical(wanted, path, driver)).toBe(true)
      expect(await restoreIncomplete(path)).toBe(null)
    },
  )

  it.runIf(isRoot)('keeps every image marked until all are whole', async () => {
    const small = await stand.raw('small.raw', mib, [{ offset: 0, size: mib, seed: 3 }])
    const made = await stand.backup(
      stand.request([
        { disk: 'a', sizeBytes: BigInt(mib), address: { $case: 'rawPath' as const, value: small } },
        {
          disk: 'b',
          sizeBytes: BigInt(size),
          address: { $case: 'rawPath' as const, value: wanted },
        },
      ]),
    )
    const one = await stand.raw('one.raw', mib, [])
    const folder = stand.path('half')
    await mkdir(folder)
    await run('mount', ['-t', 'tmpfs', '-o', 'size=40m', 'tmpfs', folder])
    try {
      const two = join(folder, 'two.raw')
      await run('qemu-img', ['create', '-q', '-f', 'raw', two, String(size)])
      const ballast = await open(join(folder, 'ballast'), 'w')
      await ballast.writeFile(Buffer.alloc(30 * mib))
      await ballast.close()
      const disks = [
        { disk: 'a', targetPath: one, format: RAW, replace: true },
        { disk: 'b', targetPath: two, format: RAW, replace: true },
      ]
      const failed = await stand.restore(made.name, disks, { differential: true })
      expect(failed).toMatchObject({ state: FAILED, errorReason: 'TARGET_FULL' })
      // The first may be whole, but with the second it would show two instants.
      for (const path of [one, two]) expect(existsSync(restoreMarkPath(path))).toBe(true)
      await run('rm', [join(folder, 'ballast')])
      const session = await stand.restore(made.name, disks, { differential: true })
      expect(session.errorMessage).toBe('')
      expect(await isIdentical(wanted, two)).toBe(true)
      for (const path of [one, two]) expect(existsSync(restoreMarkPath(path))).toBe(false)
    } finally {
      await run('umount', [folder])
    }
  })

  it.each([
    [
      'an overlay of itself',
      'mv "$0" "$0.below"; qemu-img create -q -f qcow2 -F qcow2 -b "$0.below" "$0"',
    ],
    ['a copy', 'cp "$0" "$0.copy"; mv "$0.copy" "$0"'],
  ])('writes into no image that became %s while its tables were checked', async (_, replace) => {
    const path = await aged('qcow2')
    const bin = stand.path(`bin-${count}`)
    await mkdir(bin)
    const real = process.env.PATH ?? ''
    const script = `#!/bin/sh
PATH=${real}
[ -e ${bin}/replaced ] || (touch ${bin}/replaced; sh -c '${replace}' ${path})
exec qemu-img "$@"
`
    await writeFile(join(bin, 'qemu-img'), script, { mode: 0o755 })
    vi.stubEnv('PATH', `${bin}:${real}`)
    try {
      const session = await restore(path, QCOW2)
      expect(session).toMatchObject({ state: FAILED, errorReason: 'IMAGE_CHANGED' })
    } finally {
      vi.unstubAllEnvs()
    }
    expect(existsSync(restoreMarkPath(path))).toBe(false)
    expect((await restore(path, QCOW2)).errorMessage).toBe('')
    expect(await isIdentical(wanted, path, 'qcow2')).toBe(true)
  })

  it('refuses a fixed VHD that a backup reads', async () => {
    const path = await aged('vpc', stand.folder, 'subformat=fixed,force_size=on')
    await using backup = await StorageDaemon.start({ folder: stand.path('backup') })
    await backup.lockFile('d0', path, false)
    const session = await restore(path, VHD)
    expect(session).toMatchObject({ state: FAILED, errorReason: 'TARGET_IN_USE' })
    expect(existsSync(restoreMarkPath(path))).toBe(false)
  })

  it('changes no byte when one of the images cannot be marked', async () => {
    const one = await aged('raw')
    const before = await readFile(one)
    // A folder in the place where the mark is prepared.
    const inTheWay = `${restoreMarkPath(one)}.new`
    await mkdir(inTheWay)
    const failed = await restore(one, RAW)
    expect(failed.state).toBe(FAILED)
    expect((await readFile(one)).equals(before)).toBe(true)
    expect(existsSync(restoreMarkPath(one))).toBe(false)
    await rmdir(inTheWay)
    expect((await restore(one, RAW)).errorMessage).toBe('')
  })

  it('leaves no mark of its own when a later image cannot be marked', async () => {
    const disks = ['a', 'b', 'c'].map((disk) => ({
      disk,
      sizeBytes: BigInt(size),
      address: { $case: 'rawPath' as const, value: wanted },
    }))
    const made = await stand.backup(stand.request(disks))
    const [whole, half, third] = [await aged('raw'), await aged('raw'), await aged('raw')]
    await writeFile(restoreMarkPath(half), '{}')
    // A folder in the place of the mark itself.
    await mkdir(restoreMarkPath(third))
    const order = [
      { disk: 'a', targetPath: whole, format: RAW, replace: true },
      { disk: 'b', targetPath: half, format: RAW, replace: true },
      { disk: 'c', targetPath: third, format: RAW, replace: true },
    ]
    const failed = await stand.restore(made.name, order, { differential: true })
    expect(failed.state).toBe(FAILED)
    expect(failed.errorMessage).toContain(third)
    expect(existsSync(restoreMarkPath(whole))).toBe(false)
    expect(existsSync(restoreMarkPath(half))).toBe(true)
    expect((await readdir(stand.folder)).filter((name) => name.endsWith('.new'))).toEqual([])
    await rmdir(restoreMarkPath(third))
    const session = await stand.restore(made.name, order, { differential: true })
    expect(session.errorMessage).toBe('')
    for (const path of [whole, half, third]) {
      expect(await isIdentical(wanted, path)).toBe(true)
      expect(existsSync(restoreMarkPath(path))).toBe(false)
    }
  })

  it('refuses an image of another size and one that is missing', async () => {
    const larger = await stand.raw('larger.raw', size + 4096, [{ offset: 0, size: 512, seed: 1 }])
    const before = await readFile(larger)
    const session = await restore(larger, RAW)
    expect(session).toMatchObject({ state: FAILED, errorReason: 'DISK_SIZE_MISMATCH' })
    expect(session.errorMessage).toContain('without --differential')
    expect((await readFile(larger)).equals(before)).toBe(true)
    expect(existsSync(restoreMarkPath(larger))).toBe(false)
    const missing = await restore(stand.path('missing'), RAW).catch((thrown) => thrown)
    expect(asBackupError(missing)?.reason).toBe('IMAGE_MISSING')
  })

  it('voids what was tracked, keeps bitmaps of others, and tracks from the backup on', async () => {
    const path = await aged('qcow2')
    const { repository } = await stand.calls.inspectRepository({ folder: stand.repository })
    const mine = bitmapName(repository?.repositoryId ?? '', '0123456789ab')
    for (const name of [mine, 'somebody-else']) {
      await run('qemu-img', ['bitmap', '--add', '-f', 'qcow2', path, name])
    }
    expect((await restore(path, QCOW2)).errorMessage).toBe('')
    const bitmaps = await bitmapsOf(path)
    const fresh = bitmapName(repository?.repositoryId ?? '', pointId)
    expect(bitmaps.map(({ name }) => name).sort()).toEqual([fresh, 'somebody-else'])
    // Recording, and not torn.
    for (const { flags } of bitmaps) expect(flags).toEqual(['auto'])
  })
})

describe('lockImage', () => {
  it('keeps QEMU from the image until the file is closed', async () => {
    const path = await aged('raw')
    const file = await open(path, 'r+')
    lockImage(file.fd, path)
    const write = ['-f', 'raw', '-c', 'write 0 512', path]
    await expect(run('qemu-io', write)).rejects.toThrow(/lock/)
    await expect(run('qemu-io', ['-r', '-f', 'raw', '-c', 'read 0 512', path])).rejects.toThrow(
      /lock/,
    )
    await expect(run('qemu-img', ['bench', '-f', 'raw', '-c', '1', path])).rejects.toThrow(/lock/)
    await file.close()
    await run('qemu-io', write)
  })

  it('is refused while QEMU has the image open', async () => {
    const path = await aged('raw')
    for (const mode of [['-r'], []]) {
      const socket = stand.path(`lock-${mode.length}.sock`)
      const busy = spawn('qemu-nbd', [...mode, '-t', '-f', 'raw', '-k', socket, path])
      // The socket is there before the image is open; an answer comes after it.
      while (!existsSync(socket)) await sleep(5)
      await run('nbdinfo', ['--size', `nbd+unix:///?socket=${socket}`])
      const file = await open(path, 'r+')
      try {
        expect(() => lockImage(file.fd, path)).toThrow(
          expect.objectContaining({ code: 'TARGET_IN_USE' }) as BackupError,
        )
      } finally {
        await file.close()
        await end(busy)
      }
    }
  })
})

async function daemonsOf(folder: string): Promise<number[]> {
  const found: number[] = []
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    const program = await readlink(`/proc/${pid}/exe`).catch(() => '')
    const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (program.endsWith('qemu-storage-daemon') && line.includes(folder)) found.push(Number(pid))
  }
  return found
}

async function end(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}
