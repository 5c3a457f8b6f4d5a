// For tests: a running move service with a repository, real images and real NBD servers.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { newPointId, randomHex, sleep } from '@blockferry/core'
import { backup as catalog, move, type snapshot } from '@blockferry/proto'
import { connect, type RpcClient, type RunningService } from '@blockferry/rpc'
import { type MoveSettings, moveConfig, startMove } from './index.ts'

export const run = promisify(execFile)

export const oddName = `odd „ü" $(x) 'q', a=b\nnewline`

export interface ImageRun {
  offset: number
  size: number
  /** Seeds the content. */
  seed: number
}

/** Bytes that compress a little and differ by seed. */
function bytesOf({ size, seed }: ImageRun): Buffer {
  const bytes = Buffer.alloc(size)
  let state = seed | 1
  for (let index = 0; index < size; index++) {
    state = (Math.imul(state, 1103515245) + 12345) | 0
    bytes[index] = (state >>> 16) & 0x3f
  }
  return bytes
}

export class MoveStand implements AsyncDisposable {
  readonly folder: string
  readonly repository: string
  calls: RpcClient<move.MoveServiceServer>
  #service: RunningService
  readonly #settings: Partial<MoveSettings>
  readonly #children: ChildProcess[] = []
  #number = 0

  private constructor(
    folder: string,
    service: RunningService,
    settings: Partial<MoveSettings>,
    calls: RpcClient<move.MoveServiceServer>,
  ) {
    this.folder = folder
    this.repository = join(folder, oddName)
    this.#service = service
    this.#settings = settings
    this.calls = calls
  }

  static async start(settings: Partial<MoveSettings> = {}): Promise<MoveStand> {
    const folder = await mkdtemp('/tmp/bf-move-')
    const { service, calls } = await serve(folder, settings)
    const stand = new MoveStand(folder, service, settings, calls)
    await calls.createRepository({ folder: stand.repository, passphraseFile: '' })
    return stand
  }

  path(name: string): string {
    return join(this.folder, name)
  }

  /** The mover is stopped and started again: it knows no session any more. */
  async restart(): Promise<void> {
    await this.stopService()
    const { service, calls } = await serve(this.folder, this.#settings)
    this.#service = service
    this.calls = calls
  }

  async stopService(): Promise<void> {
    this.calls[Symbol.dispose]()
    await this.#service[Symbol.asyncDispose]()
  }

  async raw(name: string, size: number, runs: ImageRun[]): Promise<string> {
    const path = this.path(name)
    const file = await open(path, existsSync(path) ? 'r+' : 'w+')
    await file.truncate(size)
    for (const each of runs) await file.write(bytesOf(each), 0, each.size, each.offset)
    await file.close()
    return path
  }

  /** Serves an image read-only; answers its URI. The bitmap becomes a metadata context. */
  async nbd(path: string, format: string, bitmap?: string): Promise<string> {
    const socket = this.path(`${randomHex(4)}.nbd`)
    const child = spawn('qemu-nbd', [
      ...['-r', '-t', '-e', '8', '-f', format, '-k', socket],
      ...(bitmap ? ['-B', bitmap] : []),
      path,
    ])
    this.#children.push(child)
    while (!existsSync(socket)) await sleep(5)
    return `nbd+unix:///?socket=${socket}`
  }

  /** Ends the NBD servers. */
  async release(): Promise<void> {
    for (const child of this.#children.splice(0)) {
      const exited = once(child, 'exit')
      if (child.exitCode === null && child.kill('SIGKILL')) await exited
    }
  }

  /** A request with a new token, session and point. */
  request(
    disks: Partial<snapshot.PointDisk>[],
    described: Partial<catalog.Backup> = {},
  ): move.StartBackupRequest {
    this.#number++
    return move.StartBackupRequest.create({
      sessionId: `run-${this.#number}`,
      folder: this.repository,
      token: { incarnation: 1n, number: BigInt(this.#number) },
      point: {
        pointId: newPointId(),
        vm: { identity: oddName, displayName: oddName },
        disks,
        consistency: catalog.Consistency.OFF,
        pointTime: new Date(1_700_000_000_000 + this.#number),
        driver: 'qemu',
        method: catalog.Method.HOST,
      },
      backup: { vmIdentity: oddName, ...described },
    })
  }

  async until(sessionId: string, ...states: move.Session_State[]): Promise<move.Session> {
    for await (const { session } of this.calls.watchSession({ name: `sessions/${sessionId}` })) {
      if (session && states.includes(session.state)) return session
    }
    throw new Error(`session ${sessionId} ended in another state`)
  }

  /** Moves and commits. */
  async backup(request: move.StartBackupRequest): Promise<catalog.Backup> {
    await this.calls.startBackup(request)
    const { MOVED, FAILED } = move.Session_State
    const session = await this.until(request.sessionId, MOVED, FAILED)
    if (session.state === FAILED) throw new Error(session.errorMessage)
    const { backup } = await this.calls.commitBackup({ name: session.name, decisions: [] })
    if (!backup) throw new Error('no backup')
    return backup
  }

  async restore(
    backup: string,
    disks: Partial<move.RestoreDisk>[],
    more: Partial<move.StartRestoreRequest> = {},
  ): Promise<move.Session> {
    this.#number++
    const sessionId = `restore-${this.#number}`
    await this.calls.startRestore(
      move.StartRestoreRequest.create({
        sessionId,
        folder: this.repository,
        backupId: backup.replace('backups/', ''),
        disks,
        ...more,
      }),
    )
    return await this.until(
      more.sessionId ?? sessionId,
      move.Session_State.DONE,
      move.Session_State.FAILED,
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopService()
    await this.release()
    await rm(this.folder, { recursive: true, force: true })
  }
}

async function serve(
  folder: string,
  settings: Partial<MoveSettings>,
): Promise<{ service: RunningService; calls: RpcClient<move.MoveServiceServer> }> {
  const runFolder = join(folder, 'run')
  await mkdir(runFolder, { recursive: true })
  const address = `unix:${folder}/move.sock`
  const service = await startMove(
    moveConfig({
      ...{ address, runFolder, keyFolder: join(folder, 'keys'), logLevel: 'silent' },
      ...settings,
    }),
  )
  const calls = connect<move.MoveServiceServer>('move', move.MoveServiceService, address)
  return { service, calls }
}

/** Reads both with QEMU and compares, holes as zeroes. */
export async function isIdentical(one: string, other: string, format = 'raw'): Promise<boolean> {
  return await run('qemu-img', ['compare', '-f', 'raw', '-F', format, one, other]).then(
    () => true,
    () => false,
  )
}
