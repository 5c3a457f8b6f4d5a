// Test doubles of the three services that schedule calls: real gRPC over real sockets, and
// nothing behind it but a map. They keep what the real ones keep over a restart (points on the
// hypervisor, manifests in the repository) apart from what those lose, and every call can be made
// to fail, to hang or to do its work without an answer.
import { randomUUID } from 'node:crypto'
import { newLog, sleep, wallMs } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { backup, catalog, move, snapshot } from '@blockferry/proto'
import { type Handlers, type RunningService, serve } from '@blockferry/rpc'

/** Called before and after the work of every call; throws to fail it. */
export type Interfere = (moment: 'before' | 'after', method: string) => Promise<void> | void

const log = newLog('double', 'silent')

const failed = (reason: 'POINT_NOT_FOUND' | 'SESSION_NOT_FOUND' | 'RUN_FENCED', what: string) =>
  new BackupError(reason, `${what}: ${reason}`, { what })

interface HeldPoint {
  point: snapshot.Point
  request: snapshot.BeginPointRequest
}

interface HeldSession {
  session: move.Session
  request: move.StartBackupRequest | null
  /** The commit under way; a cancel waits for it. */
  committing?: Promise<{ backup: backup.Backup }>
}

/** What survives the processes: the hypervisor and the repository. */
export class World {
  readonly points = new Map<string, HeldPoint>()
  readonly manifests: backup.Backup[] = []
  readonly released: { pointId: string; outcome: snapshot.PointOutcome }[] = []
  readonly recorded: string[] = []
  readonly begun: string[] = []
  readonly cancelled: string[] = []
  readonly calls: string[] = []
  sessions = new Map<string, HeldSession>()
  incarnation = 0n
  /** By VM. */
  readonly newestTokens = new Map<string, move.FencingToken>()
  /** How long the disks of a session take. */
  movingMs = 50
  /** How long a commit takes. */
  committingMs = 0
  failSession: BackupError | null = null
  vms = new Map<string, snapshot.Vm>()
  repository = catalog.Repository.fromPartial({
    name: 'repositories/nightly',
    folder: '/repository',
    repositoryId: '0'.repeat(32),
  })
  hosts: snapshot.Host[] = []
  /** Names of backups. */
  readonly removed: string[] = []
  /** What catalog was told of verifications. */
  readonly verifications: catalog.RecordVerificationRequest[] = []
  readonly verified: move.StartVerifyRequest[] = []
  cataloged: backup.Backup[] = []
  /** What a verification finds. */
  verifyReport: move.VerifyReport | undefined
  /** Undo windows of the collections so far. */
  readonly undoDurations: move.StartCollectRequest['undoDuration'][] = []
  interfere: Interfere = () => {}
  plan = (_: catalog.PlanRetentionRequest): catalog.PlanRetentionResponse => ({
    decisions: [],
    nextPageToken: '',
  })

  addVm(identity: string, host = 'hosts/h1', disks = ['disk0']): void {
    this.vms.set(
      identity,
      snapshot.Vm.fromPartial({
        name: `${host}/vms/${identity}`,
        identity,
        displayName: `name of ${identity}`,
        state: snapshot.VmState.RUNNING,
        disks: disks.map((disk) => ({
          disk,
          sizeBytes: 1_048_576n,
          format: 'raw',
          location: `/i/${disk}`,
        })),
      }),
    )
  }
}

/** Lets `interfere` into every call. */
function interfered<H extends object>(world: World, handlers: H): H {
  const wrapped = Object.entries(handlers).map(([name, handler]) => {
    if (name === 'watchSession') return [name, handler]
    const call = async (...given: unknown[]) => {
      world.calls.push(name)
      await world.interfere('before', name)
      const answer = await (handler as (...given: unknown[]) => Promise<unknown>)(...given)
      await world.interfere('after', name)
      return answer
    }
    return [name, call]
  })
  return Object.fromEntries(wrapped) as H
}

const notOffered = async (): Promise<never> => {
  throw new Error('the double does not offer this')
}

export function serveSnapshot(world: World, address: string): Promise<RunningService> {
  const handlers: Handlers<snapshot.SnapshotServiceServer> = {
    createHost: notOffered,
    getHost: notOffered,
    async listHosts({ pageToken }) {
      // One a page.
      const next = Number(pageToken) + 1
      const nextPageToken = next < world.hosts.length ? String(next) : ''
      return { hosts: world.hosts.slice(next - 1, next), nextPageToken }
    },
    deleteHost: notOffered,
    listVms: notOffered,
    listPoints: notOffered,
    async getVm({ name }) {
      const vm = world.vms.get(name.split('/').at(-1) ?? '')
      if (!vm)
        throw new BackupError('VM_NOT_FOUND', `find VM ${name}: no host has it`, { vm: name })
      return { vm }
    },
    async beginPoint(request) {
      const known = world.points.get(request.pointId)
      if (known) return { point: known.point }
      const vm = world.vms.get(request.vm) ?? snapshot.Vm.fromPartial({ identity: request.vm })
      const point = snapshot.Point.fromPartial({
        pointId: request.pointId,
        vm,
        disks: vm.disks.map(({ disk, sizeBytes }) => ({
          disk,
          sizeBytes,
          baseBackup: request.bases[0]?.backup ?? '',
          changedContext: request.bases[0] ? 'qemu:dirty-bitmap:x' : '',
        })),
        consistency: backup.Consistency.FILESYSTEM,
        driver: 'qemu',
        method: backup.Method.CONSOLIDATED,
        decisions: [{ decision: 'QUIESCED', disk: '', message: 'frozen' }],
      })
      world.begun.push(request.pointId)
      world.points.set(request.pointId, { point, request })
      return { point }
    },
    async holdPoint({ pointId }) {
      if (!world.points.has(pointId)) throw failed('POINT_NOT_FOUND', pointId)
      return {}
    },
    async confirmPoint({ pointId }) {
      if (!world.points.has(pointId)) throw failed('POINT_NOT_FOUND', pointId)
      return {}
    },
    async releasePoint({ pointId, outcome }) {
      world.points.delete(pointId)
      world.released.push({ pointId, outcome })
      return {}
    },
  }
  return serve<snapshot.SnapshotServiceServer>({
    address,
    name: 'blockferry.snapshot.v1.SnapshotService',
    definition: snapshot.SnapshotServiceService,
    handlers: interfered(world, handlers),
    log,
  })
}

export function serveMove(world: World, address: string): Promise<RunningService> {
  const find = (name: string): HeldSession => {
    const held = world.sessions.get(name)
    if (!held) throw failed('SESSION_NOT_FOUND', name)
    return held
  }
  const start = (
    sessionId: string,
    kind: move.Session_Kind,
    request: move.StartBackupRequest | null,
    disks: string[],
  ) => {
    const name = `sessions/${sessionId}`
    const known = world.sessions.get(name)
    if (known && known.session.state !== move.Session_State.FAILED) known.request = request
    if (known && known.session.state !== move.Session_State.FAILED)
      return { session: known.session }
    const session = move.Session.fromPartial({
      name,
      kind,
      state: move.Session_State.MOVING,
      disks: disks.map((disk) => ({ disk, sizeBytes: 1_048_576n })),
      startTime: new Date(wallMs()),
    })
    const held = { session, request }
    world.sessions.set(name, held)
    void finish(held)
    return { session }
  }
  const finish = async (held: HeldSession) => {
    await sleep(world.movingMs)
    const { session } = held
    if (session.state !== move.Session_State.MOVING) return
    if (world.failSession) {
      session.errorReason = world.failSession.reason
      session.errorMessage = world.failSession.message
      session.state = move.Session_State.FAILED
      return
    }
    for (const disk of session.disks) disk.done = true
    session.state = held.request ? move.Session_State.MOVED : move.Session_State.DONE
  }
  const checkToken = ({ token, backup: described }: move.StartBackupRequest) => {
    const vm = described?.vmIdentity ?? ''
    const newest = world.newestTokens.get(vm) ?? { incarnation: 0n, number: 0n }
    if (!token || token.incarnation < newest.incarnation) throw failed('RUN_FENCED', 'token')
    if (token.incarnation === newest.incarnation && token.number < newest.number) {
      throw failed('RUN_FENCED', 'token')
    }
    world.newestTokens.set(vm, token)
  }
  const commit = async ({ session, request }: HeldSession, decisions: backup.DecisionNote[]) => {
    if (!request?.backup) throw new Error('no backup session')
    checkToken(request)
    const id = request.backup.name.split('/').at(-1) ?? ''
    const known = world.manifests.find((each) => each.name.endsWith(id))
    if (known) return { backup: known }
    await sleep(world.committingMs)
    const committed = {
      ...request.backup,
      name: `backups/${id}`,
      decisions,
      disks: session.disks.map(({ disk, sizeBytes }) =>
        backup.BackupDisk.fromPartial({ disk, sizeBytes }),
      ),
    }
    world.manifests.push(committed)
    session.state = move.Session_State.DONE
    return { backup: committed }
  }
  const handlers: Handlers<move.MoveServiceServer> = {
    createRepository: notOffered,
    removeBackup: notOffered,
    undeleteBackup: notOffered,
    holdBackup: notOffered,
    releaseBackup: notOffered,
    inspectRepository: notOffered,
    unlockRepository: notOffered,
    listKeySlots: notOffered,
    addKeySlot: notOffered,
    removeKeySlot: notOffered,
    advanceTime: notOffered,
    async drawIncarnation() {
      world.incarnation++
      return { incarnation: world.incarnation }
    },
    async listManifests({ vmIdentity }) {
      const backups = world.manifests.filter(
        (each) => !vmIdentity || each.vmIdentity === vmIdentity,
      )
      return { backups, damagedManifests: [], nextPageToken: '' }
    },
    async startBackup(request) {
      checkToken(request)
      const disks = request.point?.disks.map(({ disk }) => disk) ?? []
      return start(request.sessionId, move.Session_Kind.BACKUP, request, disks)
    },
    async commitBackup({ name, decisions }) {
      const held = find(name)
      held.committing ??= commit(held, decisions)
      return await held.committing
    },
    async startRestore({ sessionId, disks }) {
      return start(
        sessionId,
        move.Session_Kind.RESTORE,
        null,
        disks.map(({ disk }) => disk),
      )
    },
    async startVerify(request) {
      world.verified.push(request)
      const { session } = start(request.sessionId, move.Session_Kind.VERIFY, null, [])
      session.verifyReport = world.verifyReport
      return { session }
    },
    async startCollect({ sessionId, undoDuration }) {
      world.undoDurations.push(undoDuration)
      return start(sessionId, move.Session_Kind.COLLECT, null, [])
    },
    async getSession({ name }) {
      return { session: find(name).session }
    },
    async *watchSession({ name }, { signal }) {
      for (;;) {
        const { session } = find(name)
        yield { session }
        if (session.state !== move.Session_State.MOVING) return
        await sleep(10, signal)
      }
    },
    async cancelSession({ name }) {
      const { session, committing } = find(name)
      await committing?.catch(() => {})
      if (session.state === move.Session_State.DONE) return {}
      world.cancelled.push(name)
      session.state = move.Session_State.FAILED
      session.errorReason = 'CANCELLED'
      return {}
    },
  }
  return serve<move.MoveServiceServer>({
    address,
    name: 'blockferry.move.v1.MoveService',
    definition: move.MoveServiceService,
    handlers: interfered(world, handlers),
    log,
  })
}

export function serveCatalog(world: World, address: string): Promise<RunningService> {
  const handlers: Handlers<catalog.CatalogServiceServer> = {
    createRepository: notOffered,
    deleteRepository: notOffered,
    updateRepository: notOffered,
    unlockRepository: notOffered,
    listKeySlots: notOffered,
    addKeySlot: notOffered,
    removeKeySlot: notOffered,
    advanceTime: notOffered,
    async listBackups() {
      return { backups: world.cataloged, nextPageToken: '' }
    },
    listProtectedVms: notOffered,
    async planRetention(request) {
      return world.plan(request)
    },
    async rebuildCatalog() {
      return { backupCount: 0n, removedCount: 0n, damagedManifests: [] }
    },
    async removeBackup({ name }) {
      world.removed.push(name)
      return { backup: undefined }
    },
    undeleteBackup: notOffered,
    holdBackup: notOffered,
    releaseBackup: notOffered,
    async getRepository({ name }) {
      const { repository } = world
      if (name === repository.name) return { repository }
      throw new BackupError('NOT_FOUND', `find ${name}: there is none`, { name })
    },
    async listRepositories() {
      return { repositories: [world.repository], nextPageToken: '' }
    },
    async recordVerification(request) {
      world.verifications.push(request)
      return {}
    },
    async recordBackup({ backup: recorded }) {
      world.recorded.push(recorded?.name ?? '')
      return { backup: recorded }
    },
    async getBackup({ name }) {
      const id = name.split('/').at(-1) ?? ''
      const found = world.manifests.find((each) => each.name === `backups/${id}`)
      if (found && world.recorded.includes(name)) return { backup: found }
      throw new BackupError('BACKUP_NOT_FOUND', `find ${name}: there is none`, { name })
    },
  }
  return serve<catalog.CatalogServiceServer>({
    address,
    name: 'blockferry.catalog.v1.CatalogService',
    definition: catalog.CatalogServiceService,
    handlers: interfered(world, handlers),
    log,
  })
}

/** A request id that no other test uses. */
export const newRequestId = (): string => randomUUID()
