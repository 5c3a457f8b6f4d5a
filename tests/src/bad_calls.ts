// Calls that meet another, come too late, or are given up.
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { backup, schedule } from '@blockferry/proto'
import { isEnded } from '@blockferry/testkit'
import { type Case, type Ground, type Refusal, refusalOf, refusedBackup } from './ground.ts'
import { check } from './row.ts'

const command = fileURLToPath(new URL('../../apps/blockferry/src/main.ts', import.meta.url))
const impatientMs = 300
const cancelledExit = 130

async function busy(ground: Ground): Promise<Refusal> {
  const { lab, hold } = ground
  let refusal: Refusal | null = null
  const name = await hold.at(
    'startBackup',
    () => lab.startBackup(backup.Level.INCREMENTAL),
    async (started) => {
      refusal = await refusedBackup(ground, { vm: lab.vmName })
      const owner = await started
      check((refusal as Refusal).message.includes(owner), `it does not name ${owner}`)
    },
  )
  const { state } = await lab.stand.runEnd(name)
  check(state === schedule.Run_State.SUCCEEDED, 'the first backup failed')
  return refusal as unknown as Refusal
}

/** The caller's deadline; repeated under its request_id the call makes one run, not two. */
async function deadline(ground: Ground): Promise<Refusal> {
  const { lab, hold, round, random } = ground
  const request = schedule.StartBackupRequest.create({
    vm: lab.vmName,
    repository: 'repositories/main',
    requestId: `late-${random.seed}-${round}`,
  })
  const runs = async () => {
    const page = { vm: '', pageSize: 1000, pageToken: '', activeOnly: false }
    return (await lab.stand.schedule.listRuns(page)).runs
  }
  const before = (await runs()).length
  const impatient = () => lab.stand.schedule.startBackup(request, { deadlineMs: impatientMs })
  const refusal = await hold.at(
    'getVm',
    () => refusalOf(impatient()),
    (started) => started,
  )
  const { run } = await lab.stand.schedule.startBackup(request)
  const { state } = await lab.stand.runEnd(run?.name ?? '')
  check(state === schedule.Run_State.SUCCEEDED, 'the repeated call made no backup')
  const after = await runs()
  check(after.length === before + 1, `${after.length - before} runs were made`)
  return refusal
}

/** Ctrl-C while `blockferry backup` watches its run. */
async function interrupted(ground: Ground): Promise<Refusal> {
  const { lab, hold } = ground
  const child = spawn(
    process.execPath,
    [
      ...['--disable-warning=ExperimentalWarning', '--conditions=@blockferry/source', command],
      ...['backup', lab.vmName, '--repository', 'main', '--state', lab.folder],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let told = ''
  child.stdout.on('data', (text) => {
    told += text
  })
  child.stderr.on('data', (text) => {
    told += text
  })
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const exit = await hold.at(
    'startBackup',
    () => exited,
    async () => {
      child.kill('SIGINT')
      await exited
    },
  )
  check(exit === cancelledExit, `exit code ${exit}: ${told}`)
  const page = { vm: lab.vmName, pageSize: 1, pageToken: '', activeOnly: false }
  const [run] = (await lab.stand.schedule.listRuns(page)).runs
  check(run !== undefined && isEnded(run), 'the run goes on')
  check(run.state === schedule.Run_State.CANCELLED, `the run ended in ${run.state}`)
  return { reason: run.error?.reason ?? '', message: told }
}

export const badCalls: Case[] = [
  {
    name: 'two backups of one VM at once',
    expects: { reason: 'VM_BUSY', says: /web01.*wait for its end or cancel it/ },
    makesBackup: true,
    work: busy,
  },
  {
    name: "caller's deadline exceeded",
    expects: {
      reason: 'DEADLINE_EXCEEDED',
      says: /schedule .*ask again, with the same request_id/,
    },
    makesBackup: true,
    work: deadline,
  },
  {
    name: 'Ctrl-C in blockferry backup',
    expects: { reason: 'CANCELLED', says: /the run was cancelled; what it had made was removed/ },
    work: interrupted,
  },
]
