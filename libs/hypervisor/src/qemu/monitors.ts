import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { BackupError } from '@blockferry/errors'
import { Qmp } from '../qmp.ts'
import { Rows } from './rows.ts'

/** Where the monitors of a host's VMs are. */
export type MonitorPlace =
  /** Each subfolder holds a `qmp.sock`. */
  { folder: string } | { sockets: string[] }

/**
 * The monitor sockets of one host. A monitor serves one client at a time, so our own
 * work on it is put in a row here instead of meeting a socket that never greets.
 */
export class Monitors extends Rows {
  #place: MonitorPlace

  constructor(place: MonitorPlace) {
    super()
    this.#place = place
  }

  /** Errors: HOST_UNREACHABLE, HOST_DENIED. */
  async list(): Promise<string[]> {
    if ('sockets' in this.#place) return this.#place.sockets
    const { folder } = this.#place
    try {
      const entries = await readdir(folder, { withFileTypes: true })
      const folders = entries.filter((entry) => entry.isDirectory() || entry.isSymbolicLink())
      return folders.map(({ name }) => join(folder, name, 'qmp.sock')).sort()
    } catch (thrown) {
      const cause = (thrown as NodeJS.ErrnoException).code ?? String(thrown)
      const reason = cause === 'EACCES' ? 'HOST_DENIED' : 'HOST_UNREACHABLE'
      const message = `look for virtual machines in ${folder}: ${cause}; name the folder whose subfolders hold a qmp.sock`
      throw new BackupError(reason, message, { folder, cause })
    }
  }
}

/** Connects, works and closes. */
export async function withMonitor<T>(
  path: string,
  signal: AbortSignal,
  work: (qmp: Qmp) => Promise<T>,
): Promise<T> {
  await using qmp = await Qmp.connect(path, { signal })
  return await work(qmp)
}
