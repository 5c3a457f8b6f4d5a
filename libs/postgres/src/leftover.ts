// What an earlier launch on the same data folder left behind. The launcher's process is noted in
// a file there, so a server whose launcher still lives is told from one without.
import { readFile, readlink, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { monotonicMs, sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'

const markName = 'blockferry.launcher'

/** Notes this process as the launcher; the returned function takes the note away. */
export async function markOwner(dataFolder: string): Promise<() => Promise<void>> {
  const file = join(dataFolder, markName)
  await writeFile(file, `${process.pid} ${await startTime(process.pid)}\n`)
  return () => rm(file, { force: true })
}

/**
 * Stops a server on `dataFolder` whose launcher is gone, and removes what would keep the next one
 * from starting. Refuses while the launcher lives.
 */
export async function clearLeftover(dataFolder: string, timeoutMs: number): Promise<void> {
  const pidFile = join(dataFolder, 'postmaster.pid')
  const processId = await firstNumber(pidFile)
  if (processId === null) return
  if (!(await serves(processId, dataFolder))) {
    // The number may by now belong to somebody else, which PostgreSQL would take for a server.
    await rm(pidFile, { force: true })
    return
  }
  const launcher = await liveLauncher(dataFolder)
  if (launcher !== null) {
    throw new BackupError(
      'DATABASE_BUSY',
      `launch PostgreSQL on ${dataFolder}: process ${launcher} already runs one there; stop that process or choose another data folder`,
      { folder: dataFolder, process: String(launcher) },
    )
  }
  await stopLeftover(processId, dataFolder, timeoutMs)
}

async function stopLeftover(
  processId: number,
  dataFolder: string,
  timeoutMs: number,
): Promise<void> {
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
    const deadlineMs = monotonicMs() + timeoutMs
    sendTo(processId, signal)
    while (await serves(processId, dataFolder)) {
      if (monotonicMs() > deadlineMs) break
      await sleep(20)
    }
    if (!(await serves(processId, dataFolder))) return
  }
  throw new BackupError(
    'DATABASE_BUSY',
    `launch PostgreSQL on ${dataFolder}: process ${processId} of an earlier launch does not stop; end it by hand`,
    { folder: dataFolder, process: String(processId) },
  )
}

function sendTo(processId: number, signal: NodeJS.Signals): void {
  try {
    process.kill(processId, signal)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown
  }
}

async function liveLauncher(dataFolder: string): Promise<number | null> {
  const [pid, started] = (await readText(join(dataFolder, markName))).trim().split(' ')
  const processId = Number(pid)
  if (!Number.isInteger(processId) || processId <= 0) return null
  const now = await startTime(processId)
  return now !== '' && now === started ? processId : null
}

/** Whether the process is a PostgreSQL that works in `dataFolder`: it keeps it as its own folder. */
async function serves(processId: number, dataFolder: string): Promise<boolean> {
  const command = await readText(`/proc/${processId}/cmdline`)
  if (!/(^|\/)postgres(\0|$)/.test(command)) return false
  const folder = await readlink(`/proc/${processId}/cwd`).catch(() => '')
  return folder === dataFolder || command.split('\0').includes(dataFolder)
}

// Start time of a process in ticks since boot: together with the number it names one process for
// good. The name in parentheses may hold spaces.
async function startTime(processId: number): Promise<string> {
  const stat = await readText(`/proc/${processId}/stat`)
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? ''
}

async function firstNumber(file: string): Promise<number | null> {
  const number = Number((await readText(file)).split('\n')[0])
  return Number.isInteger(number) && number > 0 ? number : null
}

const readText = (file: string): Promise<string> => readFile(file, 'utf8').catch(() => '')
