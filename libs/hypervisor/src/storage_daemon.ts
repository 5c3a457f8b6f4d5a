// QEMU's storage daemon, run as a child of ours: it takes QEMU's own locks on the
// images, understands their formats and shows them over NBD on a unix socket.
//
// It ends with us even when we are killed: the kernel sends it SIGTERM when its
// parent dies (setpriv --pdeathsig), upon which it closes its images and saves their
// bitmaps. Its sockets lie in a folder named `bf-<tag>-<point id>`, which is part of its
// command line, so that a later process of ours recognizes what an earlier one started.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { after, monotonicMs, sleep } from '@blockferry/core'
import { argumentInvalid, BackupError } from '@blockferry/errors'
import { filesOf, type ImageLayer } from './image/image_layers.ts'
import { fileNode, layersNode, lockedNode } from './image/image_node.ts'
import { foreignLimits } from './image/limits.ts'
import { cutOffReaders, removeExport } from './nbd_export.ts'
import { Qmp } from './qmp.ts'

export interface StorageDaemonOptions {
  /** For its sockets alone, made here; short, since a unix socket's path ends at 107 bytes. */
  folder: string
  signal?: AbortSignal
}

export interface ImageNode {
  /** Unique in the daemon, at most 31 characters of `[A-Za-z0-9_]`. */
  nodeName: string
  layers: ImageLayer[]
  writable: boolean
}

interface OpenNode {
  'node-name': string
  drv: string
  image: { filename?: string; 'virtual-size': number }
}

/** Drivers that open a file, a device or an address; formats and filters open none. */
const formatDrivers = ['raw', 'qcow2', 'vmdk', 'vpc', 'vhdx', 'vdi', 'blkdebug']

const startMs = 10_000
// Once in some 2,000 starts the daemon accepted the connection before its monitor listened, and
// then said nothing more on it; another connection helps.
const connectMs = 1_000
const openMs = 30_000
// Saving the bitmaps of many large disks takes seconds on slow storage; killing earlier loses them.
const quitMs = 60_000
const termMs = 5_000
const connectionsMax = 16
const stderrKept = 4_096
const socketPathMax = 107

export class StorageDaemon implements AsyncDisposable {
  readonly folder: string
  readonly qmp: Qmp
  #child: ChildProcess
  #exited: Promise<void>
  #nbdStarted = false
  /** Paths that it was told to open. */
  readonly #files = new Set<string>()
  #closing: Promise<void> | null = null

  private constructor(folder: string, qmp: Qmp, child: ChildProcess, exited: Promise<void>) {
    this.folder = folder
    this.qmp = qmp
    this.#child = child
    this.#exited = exited
  }

  /** Errors: TOOL_MISSING, ARGUMENT_INVALID, HOST_UNREACHABLE. */
  static async start(options: StorageDaemonOptions): Promise<StorageDaemon> {
    options.signal?.throwIfAborted()
    const { folder } = options
    const monitor = join(folder, 'qmp.sock')
    if (Buffer.byteLength(monitor) > socketPathMax) {
      throw argumentInvalid('run folder', dirname(folder), 'too long for a socket; choose another')
    }
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const child = spawnDaemon(monitor)
    const exited = new Promise<void>((resolve) => {
      child.once('exit', () => resolve())
      child.once('error', () => resolve())
    })
    try {
      const qmp = await connectWhenUp(child, monitor, options.signal)
      return new StorageDaemon(folder, qmp, child, exited)
    } catch (thrown) {
      child.kill('SIGKILL')
      await exited
      await rm(folder, { recursive: true, force: true })
      throw thrown
    }
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  /**
   * Opens the image with all its layers and keeps others from writing to any of its files; answers
   * the size of the disk. Errors: QmpRefusal with QEMU's words, DISK_FORMAT_UNSUPPORTED.
   */
  async openImage({ nodeName, layers, writable }: ImageNode): Promise<number> {
    const files = filesOf(layers)
    for (const path of files) this.#files.add(path)
    await this.#add({ ...layersNode(layers, writable), 'node-name': nodeName })
    const sizeBytes = await this.#assertOpened(nodeName)
    // What is open for writing is locked by that; a reader locks neither what lies below nor plain bytes.
    for (const [index, path] of files.entries()) {
      if (writable && index === 0) continue
      const isDevice = layers.some((layer) => layer.path === path && layer.isDevice)
      await this.lockFile(`${nodeName}_${index}`, path, isDevice)
    }
    return sizeBytes
  }

  /**
   * Keeps every program that respects QEMU's locks from writing to the file, without
   * interpreting it.
   */
  async lockFile(nodeName: string, path: string, isDevice: boolean): Promise<void> {
    this.#files.add(path)
    await this.#add({ ...lockedNode(fileNode(path, isDevice)), 'node-name': nodeName })
  }

  /** Shows a node; answers its libnbd URI. `bitmaps` become metadata contexts. */
  async exportNbd(
    nodeName: string,
    exportName: string,
    bitmaps: { node: string; name: string }[] = [],
    writable = false,
  ): Promise<string> {
    const socket = socketOf(this.folder)
    if (!this.#nbdStarted) {
      await this.qmp.execute('nbd-server-start', {
        addr: { type: 'unix', data: { path: socket } },
        'max-connections': connectionsMax,
      })
      this.#nbdStarted = true
    }
    await this.qmp.execute('block-export-add', {
      id: `ex_${exportName}`,
      type: 'nbd',
      'node-name': nodeName,
      name: exportName,
      writable,
      ...(bitmaps.length > 0 ? { bitmaps } : {}),
    })
    return `nbd+unix:///${encodeURIComponent(exportName)}?socket=${encodeURI(socket)}`
  }

  /** Takes all exports away; their readers find a closed connection. Errors: HOST_DENIED. */
  async removeExports(): Promise<void> {
    const exports = await this.qmp.execute<{ id: string }[]>('query-block-exports')
    for (const { id } of exports) await removeExport(this.qmp, id, socketOf(this.folder))
  }

  /** Ends the daemon in order, so that it saves its bitmaps, and waits for it. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #add(node: Record<string, unknown>): Promise<void> {
    await this.qmp.execute('blockdev-add', node, { deadlineMs: openMs })
  }

  /**
   * A VMDK names its extents itself, and could name others than when it was looked at: nothing may
   * be read of a file that was not meant.
   */
  async #assertOpened(nodeName: string): Promise<number> {
    const nodes = await this.qmp.execute<OpenNode[]>('query-named-block-nodes', { flat: true })
    const isForeign = ({ drv, image }: OpenNode) =>
      !formatDrivers.includes(drv) && !this.#files.has(image.filename ?? '')
    const foreign = nodes.find(isForeign)?.image.filename
    if (foreign !== undefined) {
      throw new BackupError(
        'DISK_FORMAT_UNSUPPORTED',
        `open an image: it made QEMU open ${foreign}, which it did not name before; look at who writes it`,
        { path: foreign },
      )
    }
    const node = nodes.find((one) => one['node-name'] === nodeName)
    if (!node) throw new Error(`the storage daemon has no node ${nodeName}`)
    return node.image['virtual-size']
  }

  async #close(): Promise<void> {
    try {
      // A reader that hangs would keep it from ending until it is killed, and its bitmaps be lost.
      await this.removeExports()
      await this.qmp.execute('quit')
    } catch {
      this.#child.kill('SIGTERM')
    }
    this.qmp.close()
    const takeBack = after(quitMs, () => this.#child.kill('SIGKILL'))
    await this.#exited
    takeBack()
    await rm(this.folder, { recursive: true, force: true })
  }
}

/** A daemon found in the process table. */
export interface FoundDaemon {
  pid: number
  tag: string
  pointId: string
  folder: string
}

/** Storage daemons of points whose sockets lie in `runFolder`, whoever started them. */
export async function findStorageDaemons(runFolder: string): Promise<FoundDaemon[]> {
  const all = await runningDaemons()
  return all.flatMap(({ pid, folder }) => {
    const name = dirname(folder) === runFolder ? basename(folder) : ''
    const parts = /^bf-([0-9a-f]{6})-([0-9a-f]{12})$/.exec(name)
    return parts ? [{ pid, folder, tag: parts[1] as string, pointId: parts[2] as string }] : []
  })
}

/** Ends a daemon that an earlier process of ours started; bitmaps are saved unless it hangs. */
export async function endStorageDaemon(daemon: { pid: number; folder: string }): Promise<void> {
  const { pid, folder } = daemon
  const stillIt = async () =>
    (await runningDaemons()).some((other) => other.pid === pid && other.folder === folder)
  await cutOffReaders(socketOf(folder))
  for (const [kill, waitMs] of [
    ['SIGTERM', quitMs],
    ['SIGKILL', termMs],
  ] as const) {
    if (!(await stillIt())) break
    signalProcess(pid, kill)
    const lateAt = monotonicMs() + waitMs
    while (monotonicMs() < lateAt && (await stillIt())) await sleep(50)
  }
  await rm(folder, { recursive: true, force: true })
}

/** Ends what an earlier process of ours left in a daemon's folder, and removes the folder. */
export async function endDaemonsIn(folder: string): Promise<void> {
  for (const daemon of await runningDaemons()) {
    if (daemon.folder === folder) await endStorageDaemon(daemon)
  }
  await rm(folder, { recursive: true, force: true })
}

const socketOf = (folder: string): string => join(folder, 'nbd.sock')

export const daemonFolder = (runFolder: string, tag: string, pointId: string): string =>
  join(runFolder, `bf-${tag}-${pointId}`)

/** All storage daemons that were started as here, with the folder of their monitor. */
async function runningDaemons(): Promise<{ pid: number; folder: string }[]> {
  const found: { pid: number; folder: string }[] = []
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    const line = await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '')
    const words = line.split('\0')
    if (basename(words[0] ?? '') !== 'qemu-storage-daemon') continue
    for (const word of words) {
      const folder = /(?:^|,)path=([^,]*)\/qmp\.sock(?:,|$)/.exec(word)?.[1]
      if (folder) found.push({ pid: Number(entry), folder })
    }
  }
  return found
}

function spawnDaemon(monitor: string): ChildProcess {
  const child = spawn(
    'prlimit',
    [
      ...foreignLimits(),
      'setpriv',
      '--pdeathsig',
      'TERM',
      'qemu-storage-daemon',
      '--chardev',
      `socket,id=monitor,path=${monitor},server=on,wait=off`,
      '--monitor',
      'chardev=monitor',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  )
  child.once('error', () => {})
  return child
}

async function connectWhenUp(
  child: ChildProcess,
  monitor: string,
  signal: AbortSignal | undefined,
): Promise<Qmp> {
  let stderr = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-stderrKept)
  })
  const lateAt = monotonicMs() + startMs
  for (;;) {
    await sleep(10, signal)
    if (child.pid === undefined || child.exitCode === 127) throw daemonMissing()
    if (child.exitCode !== null || child.signalCode !== null) throw daemonEnded(stderr)
    const attempt = new AbortController()
    const takeBack = after(connectMs, () => attempt.abort())
    try {
      return await Qmp.connect(monitor, { signal: attempt.signal })
    } catch (thrown) {
      const notYet =
        attempt.signal.aborted ||
        (thrown instanceof BackupError && thrown.reason === 'HOST_UNREACHABLE')
      if (!notYet || monotonicMs() > lateAt) throw thrown
    } finally {
      takeBack()
    }
  }
}

const daemonMissing = () =>
  new BackupError(
    'TOOL_MISSING',
    'start qemu-storage-daemon: it is not installed; install the Debian package qemu-system-common',
    { program: 'qemu-storage-daemon', package: 'qemu-system-common' },
  )

function daemonEnded(stderr: string): BackupError {
  const cause = stderr.trim().split('\n').at(-1) || 'no message'
  return new BackupError(
    'HOST_UNREACHABLE',
    `start qemu-storage-daemon: it ended at once with "${cause}"`,
    { cause },
  )
}

function signalProcess(pid: number, name: 'SIGTERM' | 'SIGKILL'): void {
  try {
    process.kill(pid, name)
  } catch {
    // It ended meanwhile.
  }
}
