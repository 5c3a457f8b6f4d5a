// Names with slashes, newlines and unicode: a VM may have any, a resource of ours may not.
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { schedule, snapshot } from '@blockferry/proto'
import {
  type Case,
  type Ground,
  homeOf,
  none,
  type Refusal,
  refusalOf,
  refusedBackup,
  uuidOf,
} from './ground.ts'
import { IdleMachine } from './idle_machine.ts'
import { check } from './row.ts'

const execute = promisify(execFile)
const badIds = ['a/b', '../a', 'a\nb', 'ü', 'a b', '', 'a'.repeat(64)]

/** Asks with each id that is none; the last refusal, after all of them named the field. */
async function refusedIds(field: string, ask: (id: string) => Promise<unknown>): Promise<Refusal> {
  let last = none
  for (const id of badIds) {
    last = await refusalOf(ask(id))
    const named = last.reason === 'ARGUMENT_INVALID' && last.message.startsWith(`${field} `)
    const helps = /give .*letters, digits/.test(last.message)
    check(named && helps, `${JSON.stringify(id)}: ${last.reason}: ${last.message}`)
  }
  return last
}

const policyId = ({ lab }: Ground) =>
  refusedIds('policy_id', (id) =>
    lab.stand.schedule.createPolicy({
      policyId: id,
      policy: schedule.Policy.create({ vms: [lab.vmName], repository: 'repositories/main' }),
      requestId: '',
    }),
  )

const repositoryId = ({ lab }: Ground) =>
  refusedIds('repository_id', (id) =>
    lab.stand.catalog.createRepository({
      repositoryId: id,
      folder: join(lab.folder, 'never-made'),
      adopt: false,
      requestId: '',
      passphraseFile: '',
    }),
  )

const hostId = ({ lab }: Ground) =>
  refusedIds('host_id', (id) =>
    lab.stand.snapshot.createHost(
      snapshot.CreateHostRequest.create({
        hostId: id,
        host: { platform: { $case: 'folder', value: { folder: lab.folder } } },
      }),
    ),
  )

const repositoryName = (ground: Ground) =>
  refusedIds('repository', (id) =>
    ground.lab.stand.schedule.startBackup(
      schedule.StartBackupRequest.create({
        vm: ground.lab.vmName,
        repository: `repositories/${id}`,
      }),
    ),
  )

/** Backed up, listed and restored under that very name. */
async function roundTrip({ lab }: Ground, name: string): Promise<void> {
  const { run } = await lab.stand.schedule.startBackup(
    schedule.StartBackupRequest.create({ vm: name, repository: 'repositories/main' }),
  )
  const made = await lab.stand.runEnd(run?.name ?? '')
  check(made.state === schedule.Run_State.SUCCEEDED, `${made.error?.message}`)
  check(made.vmDisplayName === name, `the run says ${JSON.stringify(made.vmDisplayName)}`)
  const page = { parent: '', vm: name, pageSize: 10, pageToken: '', showRemoved: false }
  const { backups } = await lab.stand.catalog.listBackups(page)
  check(backups.length === 1, `${backups.length} backups are listed under the name`)
  const restored = await lab.restore(made.backup, 'raw')
  await rm(restored.folder, { recursive: true })
}

async function oddMachine(ground: Ground): Promise<Refusal> {
  const name = `../we,b "0"\n${ground.round}/ü 日本 $(id) %2F`
  await using _ = await IdleMachine.start(homeOf(ground, 'odd'), name, uuidOf(ground, 2))
  await roundTrip(ground, name)
  return none
}

/** Only a slash cannot be in the name of a folder. */
async function oddFolder(ground: Ground): Promise<Refusal> {
  const { lab, round } = ground
  const name = `ü "0"\n${round} 日本 $(id); %2F`
  const place = await mkdtemp(join(lab.folder, 'host-'))
  await mkdir(join(place, name))
  await execute('qemu-img', ['create', '-q', '-f', 'qcow2', join(place, name, 'd ,ü.qcow2'), '1M'])
  await lab.stand.snapshot.createHost(
    snapshot.CreateHostRequest.create({
      hostId: 'odd',
      host: { platform: { $case: 'folder', value: { folder: place } } },
    }),
  )
  try {
    await roundTrip(ground, name)
  } finally {
    await lab.stand.snapshot.deleteHost({ name: 'hosts/odd' })
    await rm(place, { recursive: true })
  }
  return none
}

/** An image's name is its disk's id, which a repository can only keep without control characters. */
async function oddImage(ground: Ground): Promise<Refusal> {
  const folder = await mkdtemp(join(ground.lab.folder, 'images-'))
  const path = join(folder, 'd\n1.raw')
  try {
    await writeFile(path, Buffer.alloc(65_536, 1))
    return await refusedBackup(ground, { vm: 'images', images: [path] })
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** Every id that a caller may choose or name, in one case: none of them gets as far as a VM. */
async function resourceIds(ground: Ground): Promise<Refusal> {
  await policyId(ground)
  await repositoryId(ground)
  await hostId(ground)
  return await repositoryName(ground)
}

export const badNames: Case[] = [
  {
    name: 'ids of policy, repository, host with slash, newline, unicode',
    expects: { reason: 'ARGUMENT_INVALID', says: /^repository .*give .*letters, digits/ },
    work: resourceIds,
  },
  {
    name: 'VM asked for by a name with slash, newline, unicode',
    expects: { reason: 'VM_NOT_FOUND', says: /"\.\.\/a\\nü".*list the VMs/ },
    work: (ground) => refusedBackup(ground, { vm: '../a\nü' }),
  },
  {
    name: 'image called with newline',
    expects: {
      reason: 'ARGUMENT_INVALID',
      says: /"d\\n1\.raw".*rename the image, or give it an "id"/,
    },
    work: oddImage,
  },
  { name: 'VM called with slash, newline, unicode', expects: null, work: oddMachine },
  { name: 'folder VM called with newline, unicode', expects: null, work: oddFolder },
]
