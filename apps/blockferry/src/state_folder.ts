// The state folder: run/ holds the sockets and is closed to others, postgres/ belongs to
// PostgreSQL, database-url says where that is to the processes that share it.
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BackupError } from '@blockferry/errors'

/** Others may pass through the folder but not list it: root's PostgreSQL runs as another account. */
const passMode = 0o711

/** Makes the folder when it is missing. Errors: ARGUMENT_INVALID. */
export function prepareStateFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: passMode })
    mkdirSync(join(folder, 'run'), { recursive: true, mode: 0o700 })
    const { mode, uid } = statSync(folder)
    if (uid === process.getuid?.() && (mode & 0o011) !== 0o011) chmodSync(folder, mode | 0o011)
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    throw new BackupError(
      'ARGUMENT_INVALID',
      `prepare the state folder ${folder}: ${code}; name a folder that this user may write with --state`,
      { field: '--state', value: folder },
    )
  }
}

export const postgresFolder = (stateFolder: string): string => join(stateFolder, 'postgres')

const urlFile = (stateFolder: string): string => join(stateFolder, 'run', 'database-url')

/** Where the database launched on this state folder is; null while none is. */
export function readDatabaseUrl(stateFolder: string): string | null {
  try {
    return readFileSync(urlFile(stateFolder), 'utf8').trim()
  } catch {
    return null
  }
}

/** Tells the other processes where the database is; the returned function takes it back. */
export function writeDatabaseUrl(stateFolder: string, url: string): () => void {
  const file = urlFile(stateFolder)
  writeFileSync(file, `${url}\n`, { mode: 0o600 })
  return () => rmSync(file, { force: true })
}
