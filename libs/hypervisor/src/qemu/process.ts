// The QEMU processes of this host, found in /proc: which one serves a monitor, its
// command line for a restore, and its start time, which tells it from a successor.
import { readdir, readFile, readlink, realpath, stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { socketsHeldBy } from './server.ts'

/** A process that no later one is taken for. */
export interface ProcessId {
  pid: number
  /** Clock ticks from the host's boot to the start of the process. */
  startTicks: string
}

export interface QemuProcess extends ProcessId {
  commandLine: string[]
  cwd: string
}

/** All processes whose program is a QEMU system emulator; others' are left out. */
export async function qemuProcesses(): Promise<QemuProcess[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  const found = await Promise.all(pids.map(readQemuProcess))
  return found.filter((process) => process !== null)
}

async function readQemuProcess(pid: number): Promise<QemuProcess | null> {
  try {
    const commandLine = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0').slice(0, -1)
    if (!/^(qemu-system-|qemu-kvm|kvm$)/.test(basename(commandLine[0] ?? ''))) return null
    const startTicks = await startTicksOf(pid)
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '/')
    return startTicks === null ? null : { pid, startTicks, commandLine, cwd }
  } catch {
    return null // It ended while it was looked at.
  }
}

export async function isRunning({ pid, startTicks }: ProcessId): Promise<boolean> {
  return (await startTicksOf(pid)) === startTicks
}

/** Null when there is no such process or it is dead and waits for its parent. */
export async function startTicksOf(pid: number): Promise<string | null> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null)
  if (stat === null) return null
  // The program's name in parentheses may hold spaces; the fields count from its end.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields[0] === 'Z' ? null : (fields[19] ?? null)
}

/**
 * The process that serves `socketPath` and whose command line says so. The command line alone
 * proves nothing: whoever may start a process here can give it any.
 */
export async function processOfSocket(
  processes: QemuProcess[],
  socketPath: string,
): Promise<QemuProcess | null> {
  const wanted = await realpath(socketPath).catch(() => socketPath)
  for (const process of processes) {
    for (const said of socketPathsOf(process)) {
      const path = resolve(process.cwd, said)
      if ((await realpath(path).catch(() => path)) !== wanted) continue
      if (await serves(process.pid, said, wanted)) return process
    }
  }
  return null
}

/** The paths of sockets in the command line, as it writes them. */
const socketPathsOf = (process: QemuProcess): string[] =>
  process.commandLine
    .map((argument) => /(?:^unix:|^socket,(?:.*,)?path=)([^,]+)/.exec(argument)?.[1])
    .filter((path) => path !== undefined)

/** `boundPath` is how the process wrote the path, which is how the kernel shows it. */
async function serves(pid: number, boundPath: string, socketPath: string): Promise<boolean> {
  const served = await socketsHeldBy(pid, (path) => path === boundPath)
  if (served !== null) return served.length > 0
  // A process of another account: only that account, or root, may have made the socket.
  const owners = await Promise.all([stat(`/proc/${pid}`), stat(socketPath)]).catch(() => null)
  return owners !== null && owners[0].uid === owners[1].uid
}

/** The value of an option such as -uuid, or null. */
export function optionOf(process: QemuProcess, option: string): string | null {
  const index = process.commandLine.findIndex((argument) => argument.replace('--', '-') === option)
  return index < 0 ? null : (process.commandLine[index + 1] ?? null)
}
