// Every limit of the move service, by name.

export interface MoveConfig {
  /** `unix:/path` or a loopback address with a port. */
  address: string
  /** Folder for the sockets of restores into qcow2, made when missing; short, see limits of unix sockets. */
  runFolder: string
  /** Folder for this installation's keys to encrypted repositories, made when it is needed. */
  keyFolder: string
  logLevel: string
  /** Sessions whose blocks move at the same time; the others wait for their turn. */
  sessionsMax: number
  /** Disks of one session that move at the same time. */
  disksMax: number
  /** Longest time without an answer of a source. */
  stallTimeoutMs: number
  /** A watch sends a session at most this often. */
  watchIntervalMs: number
  /** How long an ended session can still be asked about. */
  endedKeptMs: number
  /** How many of them at most. */
  endedKeptMax: number
  /** A repository's session that writes nothing for so long is dead: collections do not wait for it. */
  sessionDeadMs: number
}

export type MoveSettings = Pick<MoveConfig, 'address' | 'runFolder' | 'keyFolder'> &
  Partial<MoveConfig>

/** The configuration with a default for everything that is not set. */
export function moveConfig(settings: MoveSettings): MoveConfig {
  return {
    logLevel: 'info',
    sessionsMax: 8,
    disksMax: 2,
    stallTimeoutMs: 30_000,
    watchIntervalMs: 200,
    endedKeptMs: 10 * 60_000,
    endedKeptMax: 1000,
    sessionDeadMs: 24 * 3600_000,
    ...settings,
  }
}
