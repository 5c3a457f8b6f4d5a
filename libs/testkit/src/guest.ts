// A small real guest for tests: QEMU with Debian's kernel, the guest agent, real
// file systems and a second channel by which a test runs scripts in it, because
// the product holds the agent's channel.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { access, mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { monotonicMs, sleep } from '@blockferry/core'
import { GuestShell } from './guest_shell.ts'

const run = promisify(execFile)
const buildScript = fileURLToPath(new URL('../guest/build.sh', import.meta.url))

/** Where the tests of this checkout keep the built guest. */
export const guestCache = fileURLToPath(
  new URL('../../../node_modules/.cache/blockferry', import.meta.url),
)

/** Kernel and initramfs that a guest boots from. */
export interface GuestFiles {
  kernel: string
  initrd: string
}

/** Builds the guest once per version of its scripts; takes milliseconds when the cache has it. */
export async function buildGuest(cacheFolder: string = guestCache): Promise<GuestFiles> {
  const { stdout } = await run('sh', [buildScript, cacheFolder], { maxBuffer: 1 << 24 })
  const folder = stdout.trim().split('\n').at(-1) ?? ''
  return { kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initrd.gz') }
}

export interface GuestDisk {
  path: string
  format: 'qcow2' | 'raw'
  /** Created with this size when the file does not exist. */
  sizeBytes: number
  /** False leaves the disk without file system, for O_DIRECT writes; true is ext4 at /data/N. */
  filesystem?: boolean
  /** Default: disk0, disk1, … Null leaves the device without serial. */
  serial?: string | null
  /** On a root port of its own, so that device_del works. */
  pluggable?: boolean
}

export interface GuestOptions {
  files: GuestFiles
  /** Holds qmp.sock, qga.sock, console.log and the rest; keep it short for the sockets. */
  folder: string
  disks: GuestDisk[]
  name?: string
  /** Null leaves QEMU without UUID. */
  uuid: string | null
  /** Added to the kernel command line, for example writer=1 (all options: guest/init). */
  append?: string
  accel?: 'tcg' | 'kvm'
  /** More arguments for QEMU. */
  qemuArguments?: string[]
}

const bootMsMax = 90_000

export class Guest implements AsyncDisposable {
  readonly folder: string
  readonly pid: number
  /** Settles when QEMU has ended. */
  readonly exited: Promise<void>
  readonly bootMs: number
  #shell: GuestShell
  #child: ChildProcess
  #running = true

  private constructor(folder: string, child: ChildProcess, shell: GuestShell, bootMs: number) {
    this.folder = folder
    this.pid = child.pid as number
    this.bootMs = bootMs
    this.#shell = shell
    this.#child = child
    this.exited = exitOf(child).then(() => {
      this.#running = false
      shell.close()
    })
  }

  static async start(options: GuestOptions): Promise<Guest> {
    await mkdir(options.folder, { recursive: true })
    for (const name of ['qmp.sock', 'qga.sock', 'test.sock', 'console.log', 'ticks', 'pid']) {
      await rm(join(options.folder, name), { force: true })
    }
    for (const disk of options.disks) await createDisk(disk)
    const log = openSync(join(options.folder, 'qemu.log'), 'w')
    const child = spawn('qemu-system-x86_64', qemuArguments(options), {
      stdio: ['ignore', log, log],
      detached: true,
    })
    closeSync(log)
    child.unref()
    const startMs = monotonicMs()
    let ended = false
    const exited = exitOf(child).then(() => {
      ended = true
    })
    const console = join(options.folder, 'console.log')
    while (!(await textOf(console)).includes('GUEST-READY')) {
      if (ended || monotonicMs() - startMs > bootMsMax) {
        child.kill('SIGKILL')
        await exited
        const told = `${await textOf(join(options.folder, 'qemu.log'))}\n${await textOf(console)}`
        throw new Error(`the test guest in ${options.folder} did not boot:\n${told}`)
      }
      await sleep(50)
    }
    const bootMs = monotonicMs() - startMs
    const shell = await GuestShell.connect(join(options.folder, 'test.sock'))
    return new Guest(options.folder, child, shell, bootMs)
  }

  get qmpPath(): string {
    return join(this.folder, 'qmp.sock')
  }

  get running(): boolean {
    return this.#running
  }

  /** Runs a shell script in the guest; a status other than 0 rejects with its output. */
  async sh(script: string, deadlineMs = 30_000): Promise<string> {
    const { status, output } = await this.#shell.run(script, deadlineMs)
    if (status !== 0) throw new Error(`in the guest: ${script}\nstatus ${status}: ${output}`)
    return output
  }

  /** Rounds of writing and syncing that the guest's writer finished (writer=1). */
  async ticks(): Promise<number> {
    return (await textOf(join(this.folder, 'ticks'))).split('\n').length - 1
  }

  /** Orderly power off from inside; the images are consistent and bitmaps are stored. */
  async stop(): Promise<void> {
    if (this.#running) {
      this.#shell.send('(sleep 0.1; /sbin/shutdown) &')
      await Promise.race([this.exited, sleep(15_000)])
    }
    await this.kill()
  }

  /** Like pulling the plug. */
  async kill(): Promise<void> {
    this.#child.ref()
    if (this.#running) process.kill(this.pid, 'SIGKILL')
    await this.exited
  }

  /** Stops or continues QEMU's process itself, as when its storage hangs. */
  signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    process.kill(this.pid, name)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }
}

const exitOf = (child: ChildProcess) =>
  new Promise<void>((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve()
    child.once('exit', () => resolve())
    child.once('error', () => resolve())
  })

const textOf = (path: string) => readFile(path, 'utf8').catch(() => '')

async function createDisk(disk: GuestDisk): Promise<void> {
  try {
    await access(disk.path)
  } catch {
    await run('qemu-img', ['create', '-q', '-f', disk.format, disk.path, String(disk.sizeBytes)])
  }
}

function qemuArguments(options: GuestOptions): string[] {
  const { folder, files } = options
  const accel = options.accel ?? 'tcg'
  const raw = options.disks.flatMap((disk, index) =>
    disk.filesystem === false ? [`vd${String.fromCharCode(97 + index)}`] : [],
  )
  const append = `console=ttyS0 quiet panic=-1 random.trust_cpu=on raw=${raw} ${options.append ?? ''}`
  return [
    ...['-name', options.name ?? 'guest'],
    ...(options.uuid === null ? [] : ['-uuid', options.uuid]),
    ...['-machine', `q35,accel=${accel},usb=off`, '-cpu', accel === 'kvm' ? 'host' : 'max'],
    ...['-m', '256', '-smp', '1', '-nodefaults', '-display', 'none', '-no-reboot'],
    ...['-kernel', files.kernel, '-initrd', files.initrd, '-append', append],
    ...['-chardev', `file,id=console0,path=${folder}/console.log`, '-serial', 'chardev:console0'],
    ...options.disks.flatMap(diskArguments),
    ...['-device', 'virtio-serial-pci'],
    ...portArguments('qga0', 'org.qemu.guest_agent.0', socketAt(`${folder}/qga.sock`)),
    ...portArguments('test0', 'org.blockferry.test.0', socketAt(`${folder}/test.sock`)),
    ...portArguments('tick0', 'org.blockferry.tick.0', `file,path=${folder}/ticks`),
    ...['-qmp', `unix:${folder}/qmp.sock,server=on,wait=off`, '-pidfile', `${folder}/pid`],
    ...(options.qemuArguments ?? []),
  ]
}

const socketAt = (path: string) => `socket,path=${path},server=on,wait=off`

const portArguments = (id: string, name: string, backend: string) => [
  ...['-chardev', `${backend},id=${id}`],
  ...['-device', `virtserialport,chardev=${id},name=${name}`],
]

function diskArguments(disk: GuestDisk, index: number): string[] {
  const file = `driver=file,node-name=file${index},filename=${disk.path},discard=unmap`
  const image = `driver=${disk.format},node-name=disk${index},file=file${index},discard=unmap`
  const serial = disk.serial === undefined ? `disk${index}` : disk.serial
  const port = `pcie-root-port,id=port${index},chassis=${index + 1},slot=${index + 1}`
  const device = [
    `virtio-blk-pci,drive=disk${index},id=vd${String.fromCharCode(97 + index)}`,
    ...(serial === null ? [] : [`serial=${serial}`]),
    ...(disk.pluggable ? [`bus=port${index}`] : []),
  ]
  return [
    ...['-blockdev', file, '-blockdev', image],
    ...(disk.pluggable ? ['-device', port] : []),
    ...['-device', device.join(',')],
  ]
}
