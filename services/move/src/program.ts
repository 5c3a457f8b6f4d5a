// QEMU's programs, run as children of ours. They end with us even when we are killed: the kernel
// sends them SIGTERM when their parent dies.
import { type ChildProcess, spawn } from 'node:child_process'
import { readdir, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { after, monotonicMs, randomHex, sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { type QemuFormat, qemuDriver } from './image_format.ts'

const stderrKept = 4_096
const readyMs = 10_000
const endMs = 60_000

const socketPathSizeMax = 107
const socketName = /^restore-[0-9a-f]{12}\.sock$/

/** Longest folder that sockets fit in. */
export const runFolderSizeMax = socketPathSizeMax - '/restore-0123456789ab.sock'.length

/** A new path for the socket of one restore. */
export const newSocketPath = (runFolder: string): string =>
  join(runFolder, `restore-${randomHex(6)}.sock`)

/** Removes the sockets that a killed mover left; their daemons ended with it. */
export async function removeStaleSockets(runFolder: string): Promise<void> {
  for (const name of await readdir(runFolder)) {
    if (socketName.test(name)) await rm(join(runFolder, name), { force: true })
  }
}

interface Outcome {
  code: number | null
  stdout: string
  stderr: string
}

/** Runs a program of qemu-utils to its end. Errors: TOOL_MISSING. */
export async function runQemuImg(parameters: string[], signal?: AbortSignal): Promise<Outcome> {
  const child = spawnWithUs('qemu-img', parameters)
  const cancel = () => child.kill('SIGTERM')
  signal?.addEventListener('abort', cancel, { once: true })
  try {
    const outcome = await outcomeOf(child)
    signal?.throwIfAborted()
    if (outcome.code === programMissing) throw toolMissing('qemu-img')
    return outcome
  } finally {
    signal?.removeEventListener('abort', cancel)
  }
}

/** A running storage daemon that shows one image for writing. */
export interface ImageServer {
  uri: string
  /** Lets it close the image and waits for its end. Rejects when it did not end well. */
  close(): Promise<void>
}

/** Serves an image over NBD on `socketPath`. Errors: TOOL_MISSING, TARGET_WRITE_FAILED. */
export async function serveImage(
  path: string,
  format: QemuFormat,
  socketPath: string,
  signal: AbortSignal,
): Promise<ImageServer> {
  const child = spawnWithUs('qemu-storage-daemon', [
    '--blockdev',
    JSON.stringify({ driver: 'file', 'node-name': 'file', filename: path }),
    '--blockdev',
    JSON.stringify({ driver: qemuDriver(format), 'node-name': 'image', file: 'file' }),
    '--blockdev',
    // The end of a disk need not be that of a sector, and VHDX takes whole sectors; raw takes any.
    JSON.stringify({ driver: 'raw', 'node-name': 'disk', file: 'image' }),
    '--nbd-server',
    JSON.stringify({ addr: { type: 'unix', path: socketPath } }),
    '--export',
    JSON.stringify({ type: 'nbd', id: 'disk', 'node-name': 'disk', name: 'disk', writable: true }),
  ])
  const ended = outcomeOf(child)
  try {
    await readyOrEnded(path, socketPath, ended, signal)
  } catch (thrown) {
    child.kill('SIGKILL')
    await ended
    throw thrown
  }
  return {
    uri: `nbd+unix:///disk?socket=${encodeURI(socketPath)}`,
    async close() {
      child.kill('SIGTERM')
      const takeBack = after(endMs, () => child.kill('SIGKILL'))
      const { code, stderr } = await ended
      takeBack()
      if (code !== 0) throw serverFailed(path, stderr || `it ended with ${code ?? 'a signal'}`)
    },
  }
}

async function readyOrEnded(
  path: string,
  socketPath: string,
  ended: Promise<Outcome>,
  signal: AbortSignal,
): Promise<void> {
  let outcome: Outcome | null = null
  ended.then((seen) => {
    outcome = seen
  })
  const deadlineMs = monotonicMs() + readyMs
  while (!(await answers(socketPath))) {
    if (outcome) {
      const { code, stderr } = outcome as Outcome
      if (code === programMissing) throw toolMissing('qemu-storage-daemon')
      throw serverFailed(path, stderr)
    }
    if (monotonicMs() > deadlineMs) throw serverFailed(path, `no answer within ${readyMs} ms`)
    await sleep(10, signal)
  }
}

function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath)
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}

/** What setpriv ends with when it cannot start the program. */
const programMissing = 127

function spawnWithUs(program: string, parameters: string[]): ChildProcess {
  return spawn('setpriv', ['--pdeathsig', 'TERM', program, ...parameters], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

function outcomeOf(child: ChildProcess): Promise<Outcome> {
  const kept = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8')
    child[name]?.on('data', (text: string) => {
      kept[name] = (kept[name] + text).slice(0, stderrKept)
    })
  }
  return new Promise((resolve) => {
    child.once('close', (code) => resolve({ code, ...kept }))
    child.once('error', (error) =>
      resolve({ code: programMissing, ...kept, stderr: String(error) }),
    )
  })
}

const serverFailed = (path: string, what: string): BackupError =>
  new BackupError(
    'TARGET_WRITE_FAILED',
    `write image ${path}: qemu-storage-daemon: ${what.trim()}; check the storage and restore again`,
    { target: path, what: what.trim() },
  )

const toolMissing = (program: string): BackupError =>
  new BackupError(
    'TOOL_MISSING',
    `restore to an image of another format than raw: ${program} is not installed; install the package qemu-utils, or restore to raw images`,
    { program, package: 'qemu-utils' },
  )
