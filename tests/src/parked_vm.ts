// A machine that is off, with one qcow2 and one raw image, as a folder host sees it. Its content is
// made and compared by other people's programs.
import { execFile, spawn } from 'node:child_process'
import { createCipheriv } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { monotonicMs, sleep } from '@blockferry/core'
import { type Random, sameContent } from '@blockferry/testkit'
import { check } from './row.ts'

const execute = promisify(execFile)
const pageSize = 4096
const mebibyte = 1024 * 1024
const daemonEndMsMax = 70_000

export interface ParkedDisk {
  id: string
  format: 'raw' | 'qcow2'
  path: string
  sizeBytes: number
}

export class ParkedVm {
  readonly name = 'parked'
  readonly disks: ParkedDisk[]
  readonly #folder: string

  private constructor(folder: string, disks: ParkedDisk[]) {
    this.#folder = folder
    this.disks = disks
  }

  /** Below `folder`/images, so that a folder host finds it. */
  static async create(folder: string, random: Random): Promise<ParkedVm> {
    const home = join(folder, 'images', 'parked')
    await mkdir(home, { recursive: true })
    const disks: ParkedDisk[] = [
      { id: 'root.qcow2', format: 'qcow2', path: join(home, 'root.qcow2'), sizeBytes: 256 },
      { id: 'data.raw', format: 'raw', path: join(home, 'data.raw'), sizeBytes: 160 },
    ].map((disk) => ({ ...disk, sizeBytes: disk.sizeBytes * mebibyte }) as ParkedDisk)
    const vm = new ParkedVm(folder, disks)
    for (const disk of disks) await vm.#fill(disk, random)
    return vm
  }

  get imageFolder(): string {
    return join(this.#folder, 'images')
  }

  /** The content of the disks as it is now, kept as raw files under `label`. */
  async keep(label: string): Promise<void> {
    for (const disk of this.disks) {
      const path = this.#kept(disk, label)
      await execute('qemu-img', ['convert', '-f', disk.format, '-O', 'raw', disk.path, path])
    }
  }

  /** Ids of the disks whose content is not what was kept. */
  async differFrom(label: string): Promise<string[]> {
    const different: string[] = []
    for (const disk of this.disks) {
      const kept = { path: this.#kept(disk, label), format: 'raw' }
      if (!(await sameContent(disk, kept))) different.push(disk.id)
    }
    return different
  }

  /** Bytes of the pages of all disks in which two kept contents differ. */
  async bytesBetween(one: string, other: string): Promise<number> {
    let bytes = 0
    for (const disk of this.disks) {
      bytes += await differentBytes(this.#kept(disk, one), this.#kept(disk, other))
    }
    return bytes
  }

  /** A day's work: single pages, runs of some pages, files that are new, and ones that are gone. */
  async age(random: Random): Promise<void> {
    for (const { path, format, sizeBytes } of this.disks) {
      const place = (size: number) => random.below((sizeBytes - size) / pageSize) * pageSize
      const write = (size: number) => `write -q -P ${1 + random.below(255)} ${place(size)} ${size}`
      const commands = [
        ...Array.from({ length: 300 }, () => write(pageSize)),
        ...Array.from({ length: 30 }, () => write(pageSize * (1 + random.below(96)))),
        ...Array.from({ length: 6 }, () => `write -q -z -u ${place(mebibyte)} ${mebibyte}`),
      ]
      await qemuIo(path, format, commands)
    }
  }

  /** Most of the disks is another one. */
  async spoil(random: Random): Promise<void> {
    for (const { path, format, sizeBytes } of this.disks) {
      const commands: string[] = []
      for (let at = 0; at < sizeBytes; at += mebibyte) {
        const size = pageSize * (1 + random.below(256))
        if (random.below(4) > 0) commands.push(`write -q -P ${1 + random.below(255)} ${at} ${size}`)
      }
      await qemuIo(path, format, commands)
    }
  }

  /** Waits until no storage daemon below `folder` is left: one whose parent was killed ends itself. */
  async untilLetGo(): Promise<void> {
    const startMs = monotonicMs()
    while ((await this.daemons()).length > 0) {
      check(monotonicMs() - startMs < daemonEndMsMax, 'a storage daemon did not end')
      await sleep(20)
    }
  }

  /** Process ids of the storage daemons that have the folder in their command lines. */
  async daemons(): Promise<number[]> {
    const found: number[] = []
    for (const pid of await readdir('/proc')) {
      if (!/^\d+$/.test(pid)) continue
      const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
      const isDaemon = line.split('\0')[0]?.endsWith('qemu-storage-daemon')
      if (isDaemon && line.includes(this.#folder)) found.push(Number(pid))
    }
    return found
  }

  #kept({ id }: ParkedDisk, label: string): string {
    return join(this.#folder, `${label}-${id}.kept`)
  }

  /** Noise that does not compress, with holes and repeated parts. */
  async #fill({ path, format, sizeBytes }: ParkedDisk, random: Random): Promise<void> {
    const raw = `${path}.new`
    const file = await open(raw, 'w')
    const noise = createCipheriv(
      'aes-128-ctr',
      Buffer.alloc(16, random.below(256)),
      Buffer.alloc(16),
    )
    await file.truncate(sizeBytes)
    for (let at = 0; at < sizeBytes; at += mebibyte) {
      if (random.below(4) === 0) continue
      const bytes = noise.update(Buffer.alloc(mebibyte))
      await file.write(
        random.below(5) === 0 ? Buffer.alloc(mebibyte, 'ferry') : bytes,
        0,
        mebibyte,
        at,
      )
    }
    await file.close()
    if (format === 'raw') return await rename(raw, path)
    await execute('qemu-img', ['convert', '-f', 'raw', '-O', format, raw, path])
    await rm(raw)
  }
}

async function qemuIo(path: string, format: string, commands: string[]): Promise<void> {
  const child = spawn('qemu-io', ['-d', 'unmap', '-f', format, path], {
    stdio: ['pipe', 'ignore', 'inherit'],
  })
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  child.stdin.end(`${commands.join('\n')}\nquit\n`)
  check((await ended) === 0, `qemu-io failed on ${path}`)
}

async function differentBytes(one: string, other: string): Promise<number> {
  const files = [await open(one), await open(other)] as const
  const buffers = [Buffer.alloc(mebibyte), Buffer.alloc(mebibyte)] as const
  try {
    let bytes = 0
    for (let at = 0; ; at += mebibyte) {
      const { bytesRead } = await files[0].read(buffers[0], 0, mebibyte, at)
      await files[1].read(buffers[1], 0, mebibyte, at)
      if (bytesRead === 0) return bytes
      for (let from = 0; from < bytesRead; from += pageSize) {
        const to = Math.min(from + pageSize, bytesRead)
        if (buffers[0].compare(buffers[1], from, to, from, to) !== 0) bytes += to - from
      }
    }
  } finally {
    for (const file of files) await file.close()
  }
}
