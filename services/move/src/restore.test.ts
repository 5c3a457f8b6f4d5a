import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import {
  chmod,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { sleep } from '@blockferry/core'
import type { BackupError } from '@blockferry/errors'
import { restoreMarkPath } from '@blockferry/hypervisor'
import { move } from '@blockferry/proto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isIdentical, MoveStand, oddName, run } from './move_stand.ts'

const { DONE, FAILED } = move.Session_State
const { RAW, QCOW2 } = move.ImageFormat
const mib = 1024 * 1024

let stand: MoveStand
let backup: string
let image: string

beforeAll(async () => {
  stand = await MoveStand.start()
  image = await stand.raw('image.raw', 8 * mib, [
    { offset: 0, size: mib, seed: 1 },
    { offset: 6 * mib, size: mib, seed: 2 },
  ])
  backup = await backUp(8 * mib, image)
})
afterAll(async () => {
  await stand[Symbol.asyncDispose]()
})

async function backUp(size: number, path: string): Promise<string> {
  const request = stand.request([
    {
      disk: 'vda',
      sizeBytes: BigInt(size),
      format: 'raw',
      location: path,
      address: { $case: 'rawPath', value: path },
    },
  ])
  const commandLine = ['qemu-system-x86_64', '-name', oddName, '-drive', 'file=/vm/vda,format=raw']
  Object.assign(request.point as object, {
    vmConfigJson: JSON.stringify({ driver: 'qemu', commandLine, diskFiles: { vda: '/vm/vda' } }),
  })
  return (await stand.backup(request)).name
}

const failureOf = (call: Promise<unknown>): Promise<BackupError> =>
  call.then(
    () => {
      throw new Error('the call succeeded')
    },
    (thrown) => thrown,
  )

describe('restore', () => {
  it('refuses a place that is taken and touches nothing there', async () => {
    const taken = stand.path('taken')
    await writeFile(taken, 'mine')
    await symlink('/nowhere/at/all', stand.path('dangling'))
    for (const targetPath of [taken, stand.path('dangling'), stand.folder]) {
      const failure = await failureOf(stand.restore(backup, [{ disk: 'vda', targetPath }]))
      expect(failure.reason, targetPath).toBe('TARGET_EXISTS')
    }
    expect(await readFile(taken, 'utf8')).toBe('mine')
  })

  it('does not overwrite a file that appears while it works', async () => {
    const targetPath = stand.path('appears')
    const { session: started } = await stand.calls.startRestore({
      sessionId: 'appears',
      folder: stand.repository,
      backupId: backup.replace('backups/', ''),
      disks: [{ disk: 'vda', targetPath, format: QCOW2, replace: false }],
      startScriptPath: '',
      differential: false,
    })
    expect(started?.state).toBe(move.Session_State.MOVING)
    await writeFile(targetPath, 'mine')
    const session = await stand.until('appears', DONE, FAILED)
    expect(session).toMatchObject({ state: FAILED, errorReason: 'TARGET_EXISTS' })
    expect(await readFile(targetPath, 'utf8')).toBe('mine')
    expect((await readdir(stand.folder)).filter((name) => name.endsWith('.part'))).toEqual([])
  })

  it('names what the backup does not have', async () => {
    const targetPath = stand.path('never')
    const disk = await failureOf(stand.restore(backup, [{ disk: 'vd\nb', targetPath }]))
    expect(disk.reason).toBe('DISK_NOT_FOUND')
    expect(disk.metadata.disks).toBe('vda')
    const none = await failureOf(stand.restore('backups/none', [{ disk: 'vda', targetPath }]))
    expect(none.reason).toBe('BACKUP_NOT_FOUND')
    const relative = await failureOf(stand.restore(backup, [{ disk: 'vda', targetPath: 'here' }]))
    expect(relative.metadata.field).toBe('disks.target_path')
    expect(existsSync(targetPath)).toBe(false)
  })

  it('keeps nothing of a session in which one place cannot be written', async () => {
    const second = await stand.raw('second.raw', mib, [{ offset: 0, size: mib, seed: 3 }])
    const disks = [
      ['one', image, 8 * mib],
      ['two', second, mib],
    ] as const
    const made = await stand.backup(
      stand.request(
        disks.map(([disk, path, size]) => ({
          disk,
          sizeBytes: BigInt(size),
          address: { $case: 'rawPath', value: path },
        })),
      ),
    )
    await writeFile(stand.path('file'), '')
    const session = await stand
      .restore(made.name, [
        { disk: 'one', targetPath: stand.path('new/one'), format: RAW },
        { disk: 'two', targetPath: stand.path('file/two'), format: RAW },
      ])
      .catch((thrown) => ({ state: FAILED, errorReason: thrown.reason }))
    expect(session).toMatchObject({ state: FAILED, errorReason: 'TARGET_WRITE_FAILED' })
    expect(existsSync(stand.path('new'))).toBe(false)
  })

  it.runIf(process.getuid?.() === 0)('says TARGET_FULL and removes what it wrote', async () => {
    const small = stand.path('small')
    await mkdir(small)
    await run('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', small])
    try {
      for (const format of [RAW, QCOW2]) {
        const targetPath = join(small, 'vda')
        const session = await stand.restore(backup, [{ disk: 'vda', targetPath, format }])
        expect(session).toMatchObject({ state: FAILED, errorReason: 'TARGET_FULL' })
        expect(session.errorMessage).toContain(targetPath)
        expect(await readdir(small)).toEqual([])
      }
    } finally {
      await run('umount', [small])
    }
  })

  it.runIf(process.getuid?.() === 0)('reads a repository that cannot be written', async () => {
    const { repository: folder } = stand
    await stand.restart()
    await run('mount', ['--bind', folder, folder])
    await run('mount', ['-o', 'remount,ro,bind', folder])
    try {
      const targetPath = stand.path('from-read-only')
      const session = await stand.restore(backup, [{ disk: 'vda', targetPath, format: RAW }])
      expect(session.errorMessage).toBe('')
      expect(await isIdentical(image, targetPath)).toBe(true)
      expect((await failureOf(backUp(8 * mib, image))).reason).toBe('REPOSITORY_READ_ONLY')
    } finally {
      await stand.restart()
      await run('umount', [folder])
    }
    expect(await backUp(8 * mib, image)).toMatch(/^backups\//)
  })

  it('takes back the complete image of a killed session when that is started again', async () => {
    const targetPath = stand.path('again.raw')
    const part = stand.path('.again.raw.again-1-0.part')
    await run('sh', ['-c', `echo complete > "$1" && ln "$1" "$2"`, 'sh', part, targetPath])
    const disk = { disk: 'vda', targetPath, format: RAW }
    const session = await stand.restore(backup, [disk], { sessionId: 'again-1' })
    expect(session.state).toBe(DONE)
    expect(await isIdentical(image, targetPath)).toBe(true)
    expect(existsSync(part)).toBe(false)
  })

  it('writes a script that starts the machine, and a shell reads it', async () => {
    const folder = stand.path(`machine ${oddName}`)
    const startScriptPath = join(folder, 'start.sh')
    const session = await stand.restore(
      backup,
      [{ disk: 'vda', targetPath: join(folder, 'vda.qcow2'), format: QCOW2 }],
      { startScriptPath },
    )
    expect(session.errorMessage).toBe('')
    expect((await stat(startScriptPath)).mode & 0o777).toBe(0o755)
    await run('sh', ['-n', startScriptPath])
    expect(await readFile(startScriptPath, 'utf8')).toContain('file=./vda.qcow2,format=qcow2')
  })

  it('stops on cancel and leaves nothing', async () => {
    const large = 64 * mib
    const path = await stand.raw('large.raw', large, [{ offset: 0, size: large, seed: 5 }])
    const name = await backUp(large, path)
    const folder = stand.path('cancelled/deep')
    const calls = stand.calls.startRestore({
      sessionId: 'cancelled',
      folder: stand.repository,
      backupId: name.replace('backups/', ''),
      disks: [{ disk: 'vda', targetPath: join(folder, 'vda'), format: QCOW2, replace: false }],
      startScriptPath: '',
      differential: false,
    })
    await calls
    await stand.calls.cancelSession({ name: 'sessions/cancelled' })
    const { session } = await stand.calls.getSession({ name: 'sessions/cancelled' })
    expect(session).toMatchObject({ state: FAILED, errorReason: 'CANCELLED' })
    expect(existsSync(dirname(folder))).toBe(false)
    expect(await readdir(stand.path('run'))).toEqual([])
  })
})

describe('replace', () => {
  it('swaps the new image in and keeps the old one with its mode', async () => {
    for (const [name, format] of [
      ['raw', RAW],
      ['qcow2', QCOW2],
    ] as const) {
      const path = stand.path(`vm ${oddName} ${name}`)
      await run('qemu-img', ['create', '-q', '-f', name, path, '1M'])
      await chmod(path, 0o640)
      const old = await readFile(path)
      const link = stand.path(`link-${name}`)
      await symlink(path, link)
      const session = await stand.restore(backup, [
        { disk: 'vda', targetPath: link, format, replace: true },
      ])
      expect(session.errorMessage).toBe('')
      expect(session.disks[0]?.targetPath).toBe(path)
      expect((await readFile(session.disks[0]?.keptPath ?? '')).equals(old)).toBe(true)
      expect((await stat(path)).mode & 0o777).toBe(0o640)
      expect(await isIdentical(image, path, name)).toBe(true)
    }
  })

  it('refuses an image that a running QEMU has open', async () => {
    const path = await stand.raw('busy.raw', mib, [{ offset: 0, size: 512, seed: 1 }])
    const old = await readFile(path)
    const socket = stand.path('busy.sock')
    const busy = spawn('qemu-nbd', ['-t', '-f', 'raw', '-k', socket, path])
    try {
      while (!existsSync(socket)) await sleep(5)
      const disk = { disk: 'vda', targetPath: path, format: RAW, replace: true }
      const failure = await failureOf(stand.restore(backup, [disk]))
      expect(failure.reason).toBe('TARGET_IN_USE')
      expect((await readFile(path)).equals(old)).toBe(true)
    } finally {
      await end(busy)
    }
  })

  it('lets no other restore at the old and the new images before it has ended', async () => {
    const address = { $case: 'rawPath' as const, value: image }
    const made = await stand.backup(
      stand.request(['a', 'b'].map((disk) => ({ disk, sizeBytes: BigInt(8 * mib), address }))),
    )
    const placed = await stand.raw('placed.raw', 8 * mib, [{ offset: 0, size: mib, seed: 7 }])
    const placing = await stand.raw('placing.raw', 8 * mib, [{ offset: 0, size: mib, seed: 8 }])
    const old = await readFile(placing)
    // The second swap waits for a writer of its mark, which is a pipe.
    const pipe = stand.path('pipe')
    await run('mkfifo', [pipe])
    await link(pipe, restoreMarkPath(placing))
    const disk = { format: RAW, replace: true }
    await stand.calls.startRestore({
      sessionId: 'swap',
      folder: stand.repository,
      backupId: made.name.replace('backups/', ''),
      disks: [
        { ...disk, disk: 'a', targetPath: placed },
        { ...disk, disk: 'b', targetPath: placing },
      ],
      startScriptPath: '',
      differential: false,
    })
    try {
      await waitForLock(placing)
      for (const targetPath of [placed, placing]) {
        const disks = [{ ...disk, disk: 'a', targetPath }]
        const refused = await stand.restore(made.name, disks, { differential: true })
        expect(refused).toMatchObject({ state: FAILED, errorReason: 'TARGET_IN_USE' })
      }
    } finally {
      await (await open(pipe, 'r+')).close()
    }
    const session = await stand.until('swap', DONE, FAILED)
    expect(session.errorMessage).toBe('')
    expect((await readFile(session.disks[1]?.keptPath ?? '')).equals(old)).toBe(true)
    for (const path of [placed, placing]) {
      expect(existsSync(restoreMarkPath(path))).toBe(false)
      const disks = [{ ...disk, disk: 'a', targetPath: path }]
      expect((await stand.restore(made.name, disks, { differential: true })).state).toBe(DONE)
    }
  })

  it('leaves the old or the new image in place, whenever it is killed', async () => {
    const path = stand.path('killed')
    const place = fileURLToPath(new URL('./place_image.ts', import.meta.url))
    const program = `
      import { writeFileSync, rmSync } from 'node:fs'
      import { placeOver } from ${JSON.stringify(place)}
      console.log('ready')
      for (let round = 0; ; round++) {
        writeFileSync('part', round % 2 ? 'old' : 'new')
        await placeOver('part', ${JSON.stringify(path)}, 'kept')
        rmSync('kept')
      }`
    const seed = 11
    await writeFile(path, 'old')
    for (let round = 0; round < 8; round++) {
      const child = spawn(
        process.execPath,
        ['--conditions=@blockferry/source', '--input-type=module', '--eval', program],
        { cwd: stand.folder, stdio: ['ignore', 'pipe', 'inherit'] },
      )
      await once(child.stdout, 'data')
      await sleep(5 + ((seed * (round + 1) * 7919) % 40))
      await end(child)
      expect(['old', 'new'], `SEED=${seed}`).toContain(await readFile(path, 'utf8'))
    }
  })
})

async function waitForLock(path: string): Promise<void> {
  const { ino } = await stat(path)
  for (let tries = 0; tries < 200; tries++) {
    if ((await readFile('/proc/locks', 'utf8')).includes(`:${ino} 100 `)) return
    await sleep(10)
  }
  expect.unreachable('nobody locked the image in 2 s')
}

async function end(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}
