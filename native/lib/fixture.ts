// What the tests of this folder share: disks with known bytes, real NBD servers, and a
// backup in one call. Only tests import it.
import { execFile } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { DamagedRange, MoveDiskOptions, MovedDisk, Repository, StoredDisk } from './index.ts'

const execute = promisify(execFile)

export const kib = 1024
export const mib = 1024 * kib
export const gib = 1024 * mib
export const tib = 1024 * gib
export const blockSize = 64 * kib

/** A folder with a short path (unix sockets lie in it), removed afterwards. */
export async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp('/tmp/ferry-')
  try {
    await use(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** Bytes that look random, the same for the same seed. */
export function noise(seed: string, sizeBytes: number): Buffer {
  const key = createHash('sha256').update(seed).digest().subarray(0, 16)
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(sizeBytes))
}

/** Creates the file when it is missing. */
export async function writeAt(path: string, offset: number, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'a').then(async (created) => {
    await created.close()
    return open(path, 'r+')
  })
  try {
    await file.write(bytes, 0, bytes.length, offset)
  } finally {
    await file.close()
  }
}

/** A sparse raw image; pieces are pairs of offset and bytes. */
export async function makeDisk(
  path: string,
  sizeBytes: number,
  pieces: [number, Uint8Array][] = [],
): Promise<void> {
  const file = await open(path, 'wx')
  try {
    await file.truncate(sizeBytes)
    for (const [offset, bytes] of pieces) await file.write(bytes, 0, bytes.length, offset)
  } finally {
    await file.close()
  }
}

export async function run(command: string, ...args: string[]): Promise<string> {
  return (await execute(command, args)).stdout
}

/** Throws unless both images hold the same bytes; holes are not read. */
export async function expectSame(
  one: string,
  other: string,
  formats: [string, string] = ['raw', 'raw'],
): Promise<void> {
  await run('qemu-img', 'compare', '-f', formats[0], '-F', formats[1], one, other)
}

export interface Server {
  uri: string
  pid: number
  stop(signal?: NodeJS.Signals): Promise<void>
}

let serverCount = 0

/** Starts a server that forks once its socket answers. `args` gets the socket and the pid file. */
async function startServer(
  folder: string,
  command: string,
  args: (socket: string, pidFile: string) => string[],
  exportName = '',
): Promise<Server> {
  const name = `nbd${serverCount++}`
  const socket = join(folder, name)
  const pidFile = join(folder, `${name}.pid`)
  // The server must not inherit the pipes, else this call would wait for its end.
  const line = [command, ...args(socket, pidFile)].map((each) => `'${each}'`).join(' ')
  // nbdkit's parent ends before the child has written its pid.
  const ready = `i=0; until test -s ${pidFile}; do sleep 0.01; i=$((i+1)); test $i -lt 500; done`
  await execute('sh', ['-ec', `${line} >${socket}.log 2>&1 </dev/null; ${ready}`])
  const pid = Number((await readFile(pidFile, 'utf8')).trim())
  return {
    uri: `nbd+unix:///${exportName}?socket=${socket}`,
    pid,
    async stop(signal = 'SIGTERM') {
      process.kill(pid, 'SIGCONT')
      process.kill(pid, signal)
      // A dead server may stay a zombie until the machine's init looks after it.
      const running = `grep -qs '^State:.[^ZX]' /proc/${pid}/status`
      await execute('sh', ['-c', `while ${running}; do sleep 0.01; done`])
    },
  }
}

export function serveImage(folder: string, format: string, image: string, ...more: string[]) {
  return startServer(folder, 'qemu-nbd', (socket, pidFile) => [
    ...['--fork', '-t', '-f', format, '-k', socket, `--pid-file=${pidFile}`, ...more, image],
  ])
}

/** nbdkit with a filter or a plugin, named by `args`. */
export function serveNbdkit(folder: string, ...args: string[]): Promise<Server> {
  return startServer(folder, 'nbdkit', (socket, pidFile) => ['-U', socket, '-P', pidFile, ...args])
}

export interface BackedUp {
  moved: MovedDisk
  disk: StoredDisk
}

let backupCount = 0

/** One disk as one committed backup. */
export async function backUp(
  repository: Repository,
  options: Pick<MoveDiskOptions, 'source' | 'size_bytes'> & Partial<MoveDiskOptions>,
  incarnation = 1,
): Promise<BackedUp> {
  const id = `b${++backupCount}`
  const session = await repository.openSession({
    vm_pseudonym: repository.vmPseudonym('vm'),
    point_id: `point-${id}`,
    incarnation,
    number: backupCount,
  })
  try {
    const moved = await session.moveDisk({
      disk_id: 'disk0',
      changed: { kind: 'all' },
      base: null,
      earlier: null,
      compression: { codec: 'lz4', level: 0 },
      stall_timeout_ms: 10_000,
      ...options,
    }).result
    const disk = { root: moved.root, size_bytes: options.size_bytes }
    await session.commit({
      backup_id: id,
      base_backup_id: '',
      disks: [{ disk_id: 'disk0', ...disk }],
      body: new Uint8Array(),
      lock_seconds: 0,
    })
    return { moved, disk }
  } finally {
    await session.abort()
  }
}

/** What of a disk cannot be had any more. */
export async function verify(repository: Repository, disk: StoredDisk): Promise<DamagedRange[]> {
  return (await repository.openVerification(0).verifyDisk(disk).result).ranges
}
