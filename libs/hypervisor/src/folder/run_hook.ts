// Runs a stop or start hook. It gets a process group of its own, so that one that
// hangs is ended with everything it started; what it leaves running in order to serve the
// VM stays, since only the hook's own end is waited for. Its output goes to a file without a
// name, not to a pipe: a machine started in the background would die of writing to a closed one.
import { type ChildProcess, spawn } from 'node:child_process'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, randomHex } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import type { Hook } from './vm_file.ts'

const outputShown = 1_000

/** Errors: HOOK_FAILED with the hook's last words; the signal's reason when aborted. */
export async function runHook(
  kind: 'stop' | 'start',
  vmName: string,
  hook: Hook,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted()
  const output = await openNameless()
  try {
    const [program, ...args] = hook.command
    const stdio = ['ignore', output.fd, output.fd] as const
    const child = spawn(program ?? '', args, { detached: true, stdio: [...stdio] })
    let late = false
    const endGroup = () => killGroup(child)
    const takeBack = after(hook.timeoutMs, () => {
      late = true
      endGroup()
    })
    signal.addEventListener('abort', endGroup, { once: true })
    const cause = await endOf(child)
    takeBack()
    signal.removeEventListener('abort', endGroup)
    signal.throwIfAborted()
    if (cause === null) return
    const shownCause = late ? `no end in ${hook.timeoutMs / 1000} s` : cause
    throw hookFailed(kind, vmName, shownCause, await tailOf(output))
  } finally {
    await output.close()
  }
}

async function openNameless(): Promise<FileHandle> {
  const path = join(tmpdir(), `blockferry-hook-${randomHex(8)}`)
  const file = await open(path, 'wx+', 0o600)
  await unlink(path)
  return file
}

async function tailOf(output: FileHandle): Promise<string> {
  const { size } = await output.stat()
  const tail = Buffer.alloc(Math.min(size, outputShown))
  await output.read(tail, 0, tail.length, size - tail.length)
  return tail.toString('utf8')
}

/** Null when the hook succeeded, else how it ended. */
function endOf(child: ChildProcess): Promise<string | null> {
  return new Promise((resolve) => {
    child.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    child.once('exit', (code, name) =>
      resolve(code === 0 ? null : name ? `ended by ${name}` : `exit code ${code}`),
    )
  })
}

function killGroup(child: ChildProcess): void {
  try {
    if (child.pid) process.kill(-child.pid, 'SIGKILL')
  } catch {
    // It ended meanwhile.
  }
}

function hookFailed(kind: string, vmName: string, cause: string, output: string): BackupError {
  const words = output.trim().split('\n').at(-1) ?? ''
  const advice =
    kind === 'stop' ? 'nothing was backed up; run it by hand' : 'start the machine by hand'
  return new BackupError(
    'HOOK_FAILED',
    `run ${kind} hook of VM ${vmName}: ${cause}${words ? ` ("${words}")` : ''}; ${advice}`,
    { hook: kind, vm: vmName, cause, output: words },
  )
}
