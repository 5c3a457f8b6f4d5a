import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { randomHex, sleep } from '@blockferry/core'
import { move } from '@blockferry/proto'
import { connect, type RpcClient } from '@blockferry/rpc'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { isIdentical, oddName, run } from './move_stand.ts'

const { MOVED, DONE, FAILED } = move.Session_State
const diskSize = 128 * 1024 * 1024

let folder: string
let image: string
let child: ChildProcess
let calls: RpcClient<move.MoveServiceServer>

const repository = (): string => join(folder, 'repository')

beforeEach(async () => {
  folder = await mkdtemp('/tmp/bf-crash-')
  image = join(folder, 'image')
  const file = await open(image, 'w')
  for (let offset = 0; offset < diskSize; offset += 1 << 20) {
    await file.write(Buffer.from(randomHex(1 << 19)))
  }
  await file.close()
  await startMover()
  await calls.createRepository({ folder: repository(), passphraseFile: '' })
}, 120_000)

afterEach(async () => {
  await killMover()
  await rm(folder, { recursive: true, force: true })
})

async function startMover(): Promise<void> {
  const index = fileURLToPath(new URL('./index.ts', import.meta.url))
  const address = `unix:${folder}/move.sock`
  const [runFolder, keyFolder] = [join(folder, 'run'), join(folder, 'keys')]
  const settings = JSON.stringify({ address, runFolder, keyFolder, logLevel: 'silent' })
  const program = `
    import { moveConfig, startMove } from ${JSON.stringify(index)}
    await startMove(moveConfig(${settings}))
    console.log('ready')`
  child = spawn(
    process.execPath,
    ['--conditions=@blockferry/source', '--input-type=module', '--eval', program],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  if (child.stdout) await once(child.stdout, 'data')
  calls = connect<move.MoveServiceServer>('move', move.MoveServiceService, address)
}

async function killMover(): Promise<void> {
  calls[Symbol.dispose]()
  const exited = once(child, 'exit')
  if (child.kill('SIGKILL')) await exited
}

const request = (): move.StartBackupRequest =>
  move.StartBackupRequest.create({
    sessionId: 'run-1',
    folder: repository(),
    token: { incarnation: 1n, number: 1n },
    point: {
      pointId: '0123456789ab',
      disks: [{ disk: 'vda', sizeBytes: diskSize, address: { $case: 'rawPath', value: image } }],
    },
    backup: { vmIdentity: oddName },
  })

async function until(sessionId: string, ...states: move.Session_State[]): Promise<move.Session> {
  for await (const { session } of calls.watchSession({ name: `sessions/${sessionId}` })) {
    if (session && states.includes(session.state)) return session
  }
  throw new Error(`session ${sessionId} ended in another state`)
}

/** Returns when the only disk has come at least that far. */
async function reach(sessionId: string, bytes: number): Promise<void> {
  for (;;) {
    const { session } = await calls.getSession({ name: `sessions/${sessionId}` })
    const [disk] = session?.disks ?? []
    if (session?.state !== move.Session_State.MOVING) return
    if (disk && (disk.positionBytes >= bytes || disk.storedBytes >= bytes)) return
    await sleep(2)
  }
}

const manifests = async () =>
  (await calls.listManifests({ folder: repository(), vmIdentity: '', pageSize: 0, pageToken: '' }))
    .backups

describe('a killed mover', () => {
  it('goes on with the same point where the durable part ended, and commits once', async () => {
    await calls.startBackup(request())
    await reach('run-1', diskSize * 0.8)
    await killMover()
    await startMover()
    expect(await manifests()).toEqual([])
    await calls.startBackup(request())
    const moved = await until('run-1', MOVED, FAILED)
    expect(moved.errorMessage).toBe('')
    expect(moved.disks[0]?.resumedAtBytes).toBeGreaterThan(0n)
    await killMover()
    await startMover()
    expect(await manifests()).toEqual([])
    await calls.startBackup(request())
    await until('run-1', MOVED)
    const { backup } = await calls.commitBackup({ name: 'sessions/run-1', decisions: [] })
    await killMover()
    await startMover()
    expect(await manifests()).toEqual([backup])
    const targetPath = join(folder, 'restored')
    const disks = [{ disk: 'vda', targetPath, format: move.ImageFormat.RAW, replace: false }]
    await calls.startRestore({
      sessionId: 'back',
      folder: repository(),
      backupId: 'run-1',
      disks,
      startScriptPath: '',
      differential: false,
    })
    expect((await until('back', DONE, FAILED)).errorMessage).toBe('')
    expect(await isIdentical(image, targetPath)).toBe(true)
  }, 120_000)

  it('leaves no image, no daemon and no socket of a restore that starts again', async () => {
    await calls.startBackup(request())
    await until('run-1', MOVED)
    await calls.commitBackup({ name: 'sessions/run-1', decisions: [] })
    const targetPath = join(folder, 'new', 'disk.qcow2')
    const restore = {
      sessionId: 'back',
      folder: repository(),
      backupId: 'run-1',
      disks: [{ disk: 'vda', targetPath, format: move.ImageFormat.QCOW2, replace: false }],
      startScriptPath: '',
      differential: false,
    }
    for (const share of [0.01, 0.6]) {
      await calls.startRestore(restore)
      await reach('back', diskSize * share)
      await killMover()
      const names = await readdir(join(folder, 'new'))
      expect(
        names.filter((name) => !name.endsWith('.part')),
        `share ${share}`,
      ).toEqual([])
      await startMover()
      expect(await readdir(join(folder, 'run'))).toEqual([])
    }
    await calls.startRestore(restore)
    expect((await until('back', DONE, FAILED)).errorMessage).toBe('')
    expect(await isIdentical(image, targetPath, 'qcow2')).toBe(true)
    expect(await readdir(join(folder, 'new'))).toEqual(['disk.qcow2'])
    const { stdout } = await run('sh', [
      '-c',
      'cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" "\\n"',
    ])
    expect(stdout.split('\n').filter((word) => word.includes(`${folder}/new`))).toEqual([])
  }, 120_000)
})
