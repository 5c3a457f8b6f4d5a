import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { access, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { monotonicMs, sleep } from '@blockferry/core'

const run = promisify(execFile)
const startMsMax = 20_000
const diskSizeBytes = 1 << 20

/** QEMU with one disk and nothing to boot, for everything about a VM but its guest. */
export class IdleMachine implements AsyncDisposable {
  readonly folder: string
  #child: ChildProcess

  private constructor(folder: string, child: ChildProcess) {
    this.folder = folder
    this.#child = child
  }

  /** `folder` gets the monitor and the image; null leaves the machine without UUID. */
  static async start(folder: string, name: string, uuid: string | null): Promise<IdleMachine> {
    await mkdir(folder, { recursive: true })
    const image = join(folder, 'disk.qcow2')
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', image, String(diskSizeBytes)])
    const monitor = join(folder, 'qmp.sock')
    const child = spawn(
      'qemu-system-x86_64',
      [
        ...['-S', '-name', name.replaceAll(',', ',,'), ...(uuid === null ? [] : ['-uuid', uuid])],
        ...['-machine', 'q35,accel=tcg', '-m', '64', '-nodefaults', '-display', 'none'],
        ...['-qmp', `unix:${monitor},server=on,wait=off`],
        ...['-blockdev', `driver=file,node-name=file,filename=${image}`],
        ...['-blockdev', 'driver=qcow2,node-name=disk,file=file'],
        ...['-device', 'virtio-blk-pci,drive=disk,serial=only'],
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    )
    const machine = new IdleMachine(folder, child)
    const startMs = monotonicMs()
    while (!(await exists(monitor))) {
      if (child.exitCode !== null || monotonicMs() - startMs > startMsMax) {
        await machine[Symbol.asyncDispose]()
        throw new Error(`the idle machine ${name} did not start`)
      }
      await sleep(20)
    }
    return machine
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const gone = new Promise((resolve) => this.#child.once('exit', resolve))
      this.#child.kill('SIGKILL')
      await gone
    }
    await rm(this.folder, { recursive: true, force: true })
  }
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  )
