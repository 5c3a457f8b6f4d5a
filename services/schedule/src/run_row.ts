import { type move, schedule, type snapshot } from '@blockferry/proto'

export const Kind = schedule.Run_Kind
export const State = schedule.Run_State
export type Kind = schedule.Run_Kind
export type State = schedule.Run_State

/** What a run carries out, fixed when it was queued. Exactly one of the last six is set. */
export interface Plan {
  repositoryFolder: string
  /** 32 hex digits. */
  repositoryId: string
  backup?: schedule.StartBackupRequest
  restore?: move.StartRestoreRequest
  verify?: move.StartVerifyRequest
  /** Its token is the run's when it works. */
  collect?: move.StartCollectRequest
  /** The policy as it was when the run was queued; its rules are read again when the run works. */
  retain?: schedule.Policy
  save?: true
}

/** A run as the API shows it, without what only its holder needs. */
export interface ShownRow {
  id: string
  kind: Kind
  state: State
  vmIdentity: string
  vmDisplayName: string
  host: string
  repository: string
  vmTaken: string | null
  /** What the API shows besides the columns. */
  detail: schedule.Run
  /** The last one counts. */
  pointIds: string[]
  cancelRequested: boolean
  tokenNumber: bigint
  attemptCount: number
  version: bigint
  createTime: Date
  startTime: Date | null
  endTime: Date | null
}

/** All of a run. */
export interface RunRow extends ShownRow {
  plan: Plan
  /** The last point as the snapshot service gave it. */
  point: snapshot.Point | null
}

export const hasEnded = (state: State): boolean =>
  state === State.SUCCEEDED || state === State.FAILED || state === State.CANCELLED

/** `MOVING` → `MOVING`, for log lines and messages. */
export const stateWord = (state: State): string =>
  schedule.run_StateToJSON(state).replace('STATE_', '')

/** The run as the API shows it. */
export function publicRun(row: ShownRow): schedule.Run {
  const times = {
    createTime: row.createTime,
    ...(row.startTime ? { startTime: row.startTime } : {}),
    ...(row.endTime ? { endTime: row.endTime } : {}),
  }
  return {
    ...row.detail,
    ...times,
    name: `runs/${row.id}`,
    kind: row.kind,
    state: row.state,
    vmIdentity: row.vmIdentity,
    vmDisplayName: row.vmDisplayName,
    repository: row.repository,
    pointId: row.pointIds.at(-1) ?? '',
    attemptCount: row.attemptCount,
    cancelRequested: row.cancelRequested,
  }
}

/** Id of the mover's session that reads one point for a run: another point is another session. */
export const sessionIdOf = (runId: string, pointId: string): string => `${runId}-${pointId}`
