// All VMs of one host that QEMU serves now: monitors asked, processes matched.
import { asBackupError, BackupError } from '@blockferry/errors'
import type { Vm } from '../driver.ts'
import { type Monitors, withMonitor } from './monitors.ts'
import { optionOf, processOfSocket, type QemuProcess, qemuProcesses } from './process.ts'
import { type QemuVm, readVm } from './vm.ts'

/** A VM and the monitor it is reached by; `qemu` is null when it could not be asked. */
export interface HostVm {
  monitor: string
  vm: Vm
  qemu: QemuVm | null
}

export class QemuHost {
  #monitors: Monitors
  // What a monitor said last: it is used while our own point holds the monitor.
  #last = new Map<string, HostVm>()

  constructor(monitors: Monitors) {
    this.#monitors = monitors
  }

  /** Errors: HOST_UNREACHABLE, HOST_DENIED for the place of the monitors as a whole. */
  async list(signal: AbortSignal): Promise<HostVm[]> {
    const [paths, processes] = await Promise.all([this.#monitors.list(), qemuProcesses()])
    const looked = await Promise.all(paths.map((path) => this.#look(path, processes, signal)))
    const found = looked.filter((one) => one !== null)
    return found.map((one) => refuseDuplicate(one, found))
  }

  async find(identity: string, signal: AbortSignal): Promise<HostVm> {
    const found = (await this.list(signal)).find(({ vm }) => vm.identity === identity)
    if (found) return found
    const message = `find VM ${identity}: no running QEMU has that UUID; list the VMs to see which there are`
    throw new BackupError('VM_NOT_FOUND', message, { vm: identity })
  }

  /** The next listing asks the monitor again, even if it has to wait for it. */
  forget(monitor: string): void {
    this.#last.delete(monitor)
  }

  async #look(path: string, processes: QemuProcess[], signal: AbortSignal): Promise<HostVm | null> {
    const last = this.#last.get(path)
    if (last && this.#monitors.isHeld(path)) return last
    const process = await processOfSocket(processes, path)
    try {
      const qemu = await this.#monitors.alone(path, () =>
        withMonitor(path, signal, (qmp) => readVm(qmp, path, process)),
      )
      const seen = { monitor: path, vm: qemu.vm, qemu }
      this.#last.set(path, seen)
      return seen
    } catch (thrown) {
      this.#last.delete(path)
      signal.throwIfAborted()
      // Whatever one machine says, the others are listed.
      const failure = asBackupError(thrown) ?? strange(path, thrown)
      if (failure.reason === 'CANCELLED') throw thrown
      // A socket without a process is what QEMU leaves behind: the VM is off.
      if (!process && failure.reason !== 'HOST_DENIED') return null
      return { monitor: path, vm: unasked(path, process, failure), qemu: null }
    }
  }
}

/** A VM whose monitor does not answer, as far as its command line tells. */
function unasked(path: string, process: QemuProcess | null, failure: BackupError): Vm {
  const name = process && optionOf(process, '-name')?.replace(/^guest=|,.*$/g, '')
  return {
    identity: (process && optionOf(process, '-uuid')) ?? `monitor:${path}`,
    name: name ?? path,
    state: 'running',
    disks: [],
    uncovered: [],
    refused: { reason: failure.reason, message: failure.message },
    config: { driver: 'qemu', commandLine: process?.commandLine ?? [], diskFiles: {} },
  }
}

/** A command that it does not know, an answer of another shape, a device unplugged meanwhile. */
function strange(path: string, thrown: unknown): BackupError {
  const cause = thrown instanceof Error ? thrown.message : String(thrown)
  const message = `ask the VM behind ${path}: ${cause}; does a QEMU virtual machine serve this monitor? Then try again`
  return new BackupError('HOST_UNREACHABLE', message, { path, cause }, { cause: thrown })
}

function refuseDuplicate(one: HostVm, all: HostVm[]): HostVm {
  const same = all.filter(({ vm }) => vm.identity === one.vm.identity)
  if (same.length < 2 || one.vm.refused) return one
  const places = same.map(({ monitor }) => monitor).join(' and ')
  const message = `VM ${one.vm.name}: ${places} report the UUID ${one.vm.identity}; give one of them another -uuid`
  return { ...one, vm: { ...one.vm, refused: { reason: 'VM_UUID_DUPLICATE', message } } }
}
