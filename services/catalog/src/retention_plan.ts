// What a retention would do to the backups of a VM: which there are, as the repository says, and
// which of them are the policy's. The decision itself is in retention.ts.
import { retention as proto } from '@blockferry/proto'
import { type ManifestSource, readManifests } from './manifests.ts'
import { type Candidate, type Decided, decide } from './retention.ts'
import type { CatalogedBackup, Store, StoredRepository } from './store.ts'

export interface PlanRequest {
  repository: StoredRepository
  vm: string
  /** `policies/{policy}`. */
  policy: string
  /** Undefined: everything is kept. REQUIRES: checked. */
  retention: proto.Retention | undefined
  nowMs: number
}

/** VM by VM, newest first. Errors: REPOSITORY_…, KEY_MISSING, SERVICE_UNREACHABLE. */
export async function planRetention(
  request: PlanRequest,
  store: Store,
  source: ManifestSource,
  signal: AbortSignal,
): Promise<proto.RetentionDecision[]> {
  const { repository, vm } = request
  // Before the manifests, so that none is taken for lost that is committed meanwhile.
  const entries = await store.backupsOfVm(repository.name, vm)
  const identities = new Set([vm, ...entries.map(({ message }) => message.vmIdentity)])
  const decisions: proto.RetentionDecision[] = []
  for (const identity of [...identities].sort()) {
    const { backups } = await readManifests(repository, identity, source, signal)
    const own = entries.filter(({ message }) => message.vmIdentity === identity)
    decisions.push(...planVm(withLost(backups, own), request))
  }
  return decisions
}

interface Planned extends Candidate {
  cataloged: CatalogedBackup
}

/** Everything that can be read, and what the catalog knows of besides. */
function withLost(readable: CatalogedBackup[], entries: CatalogedBackup[]): Planned[] {
  const found = new Set(readable.map(({ backup }) => backup))
  const lost = entries.filter(({ backup }) => !found.has(backup))
  // What is removed already is decided: it neither stays nor takes another one's place.
  const standing = readable.filter(({ message }) => message.removeTime === undefined)
  return [
    ...standing.map((each) => plannedOf(each, each.message.pointTime === undefined)),
    ...lost.map((each) => plannedOf(each, true)),
  ]
}

function plannedOf(cataloged: CatalogedBackup, damaged: boolean): Planned {
  const { pointTime, sequence, tags, uncoveredDisks, held, lockUntilTime } = cataloged.message
  return {
    cataloged,
    name: cataloged.backup,
    pointMs: pointTime?.getTime() ?? 0,
    sequence,
    tags,
    complete: uncoveredDisks.length === 0,
    damaged,
    held,
    lockedUntilMs: lockUntilTime?.getTime() ?? null,
  }
}

const Kind = proto.RetentionReason_Kind

function planVm(all: Planned[], request: PlanRequest): proto.RetentionDecision[] {
  const { policy, retention, nowMs } = request
  const own = all.filter(({ cataloged }) => cataloged.message.policy === policy)
  const others = all
    .filter(({ cataloged }) => cataloged.message.policy !== policy)
    .map((each) => kept(each, Kind.KEEP_OTHER_POLICY, each.cataloged.message.policy))
  const decided = retention
    ? decide(own, retention, nowMs)
    : own.map((each) => kept(each, Kind.KEEP_EVERYTHING, ''))
  return [...decided, ...others].sort(newestFirst).map(decisionOf)
}

const kept = (
  candidate: Planned,
  kind: proto.RetentionReason_Kind,
  detail: string,
): Decided<Planned> => ({
  candidate,
  verdict: proto.RetentionDecision_Verdict.KEEP,
  reasons: [{ kind, detail }],
})

/** In the order of commits; names differ always. */
const newestFirst = (one: Decided<Planned>, other: Decided<Planned>): number =>
  Number(other.candidate.sequence - one.candidate.sequence) ||
  (one.candidate.name < other.candidate.name ? 1 : -1)

function decisionOf({ candidate, verdict, reasons }: Decided<Planned>): proto.RetentionDecision {
  const { repository, backup, message } = candidate.cataloged
  const { vmIdentity, vmDisplayName, pointTime, disks } = message
  return {
    backup: `repositories/${repository}/backups/${backup}`,
    vmIdentity,
    vmDisplayName,
    pointTime,
    sizeBytes: disks.reduce((sum, disk) => sum + disk.sizeBytes, 0n),
    storedBytes: disks.reduce((sum, disk) => sum + disk.storedBytes, 0n),
    verdict,
    reasons,
  }
}
