// From what a caller asks for to a run that waits: finds the VM, the repository and the backup,
// refuses what cannot work, and writes the run QUEUED before anything is done.
import { newRunId, wallMs } from '@blockferry/core'
import { argumentInvalid, asBackupError, BackupError, isReason } from '@blockferry/errors'
import {
  type catalog,
  durationFromMs,
  installationVm,
  type backup as proto,
  schedule,
  snapshot,
} from '@blockferry/proto'
import { errorOf } from './holder.ts'
import { isSilence } from './patience.ts'
import type { PolicyRow } from './policy_store.ts'
import { checkBackupName } from './request_field.ts'
import { planRestore } from './restore_plan.ts'
import { hostOf } from './run.ts'
import { Kind, type ShownRow, State } from './run_row.ts'
import type { NewRun, RunStore } from './run_store.ts'
import type { Services } from './services.ts'
import { checkSuppliedBase, nameDisks } from './supplied_changes.ts'

type Backup = proto.Backup

const pageSize = 500

export class Queue {
  private readonly store: RunStore
  private readonly services: Services

  constructor(store: RunStore, services: Services) {
    this.store = store
    this.services = services
  }

  /** REQUIRES: the fields of `request` are checked. */
  async backup(
    request: schedule.StartBackupRequest,
    requestKey: string | null,
    policy = '',
  ): Promise<ShownRow> {
    const known = await this.known(requestKey)
    if (known) return known
    const repository = await this.repository(request.repository)
    const vm = request.images.length > 0 ? imagesVm(request.vm) : await this.vm(request.vm)
    if (vm.identity.startsWith(installationVm)) {
      throw argumentInvalid('vm', request.vm, `choose a name that does not begin so`)
    }
    if (request.suppliedChanges.length > 0) {
      const backups = await this.manifests(repository.folder, vm.identity)
      checkSuppliedBase(backups, request.baseBackup)
      // The disks of images are known when the point is taken.
      const disks = vm.disks.map(({ disk }) => disk)
      if (disks.length > 0) nameDisks(request.suppliedChanges, disks)
    }
    const id = newRunId(wallMs())
    return await this.store.insert({
      ...newRun(id, requestKey, Kind.BACKUP, repository.name),
      vmIdentity: vm.identity,
      vmDisplayName: vm.displayName,
      host: hostOf(vm.name),
      vmTaken: vm.identity,
      detail: schedule.Run.fromPartial({
        policy,
        level: request.level,
        backup: `${repository.name}/backups/${id}`,
        uncoveredDisks: vm.uncoveredDisks,
      }),
      // By identity, so that the VM is found again on another host.
      plan: { ...planIn(repository), backup: { ...request, vm: vm.identity } },
    })
  }

  /**
   * One run per VM of a policy. A VM that cannot be backed up gets a run that has failed, so that
   * it is seen. `occasion` makes it safe to repeat; throws only when another service is silent.
   */
  async policy(policy: PolicyRow, occasion: string | null): Promise<ShownRow[]> {
    const runs: ShownRow[] = []
    for (const vm of policy.vms) {
      const requestKey = occasion === null ? null : `${occasion}/${vm}`
      const request = schedule.StartBackupRequest.fromPartial({
        vm,
        repository: policy.repository,
        level: policy.level,
        skipQuiesce: policy.skipQuiesce,
        compression: policy.compression,
        tags: policy.tags,
        ...(policy.lockMs > 0 ? { lockDuration: durationFromMs(policy.lockMs) } : {}),
      })
      const name = `policies/${policy.name}`
      const queued = this.backup(request, requestKey, name)
      runs.push(
        await queued.catch((thrown: unknown) => {
          const failure = asBackupError(thrown)
          if (!failure || isSilence(failure)) throw thrown
          return this.failed(request, requestKey, name, failure)
        }),
      )
    }
    return runs
  }

  private failed(
    request: schedule.StartBackupRequest,
    requestKey: string | null,
    policy: string,
    failure: BackupError,
  ): Promise<ShownRow> {
    return this.store.insert({
      ...newRun(newRunId(wallMs()), requestKey, Kind.BACKUP, request.repository),
      state: State.FAILED,
      vmIdentity: failure.metadata.vm ?? '',
      vmDisplayName: request.vm,
      detail: schedule.Run.fromPartial({ policy, level: request.level, error: errorOf(failure) }),
    })
  }

  /** REQUIRES: the fields of `request` are checked. */
  async restore(
    request: schedule.StartRestoreRequest,
    requestKey: string | null,
  ): Promise<ShownRow> {
    const known = await this.known(requestKey)
    if (known) return known
    const { repository, backup } = await this.backupOf(request.backup)
    const id = newRunId(wallMs())
    const vm = request.inPlace ? await this.vm(backup.vmIdentity, false) : null
    const restore = await planRestore(id, request, repository.folder, backup, vm)
    return await this.store.insert({
      ...newRun(id, requestKey, Kind.RESTORE, repository.name),
      vmIdentity: backup.vmIdentity,
      vmDisplayName: backup.vmDisplayName,
      host: vm ? hostOf(vm.name) : '',
      vmTaken: vm ? vm.identity : null,
      detail: schedule.Run.fromPartial({
        backup: request.backup,
        targetFolder: request.targetFolder,
        startScript: restore.startScriptPath,
      }),
      plan: { ...planIn(repository), restore },
    })
  }

  /** REQUIRES: the fields of `request` are checked. */
  async verify(request: schedule.StartVerifyRequest, requestKey: string | null): Promise<ShownRow> {
    const known = await this.known(requestKey)
    if (known) return known
    const { repository, backup } = await this.backupOf(request.backup)
    const id = newRunId(wallMs())
    const backupId = checkBackupName(request.backup).id
    const verify = {
      ...{ sessionId: id, folder: repository.folder, backupId, firstBackupIds: [] },
      ...{ level: request.level, bytesPerSecond: request.bytesPerSecond },
    }
    return await this.store.insert({
      ...newRun(id, requestKey, Kind.VERIFY, repository.name),
      vmIdentity: backup.vmIdentity,
      vmDisplayName: backup.vmDisplayName,
      detail: schedule.Run.fromPartial({ backup: request.backup }),
      plan: { ...planIn(repository), verify },
    })
  }

  /** REQUIRES: the fields of `request` are checked. */
  async verifyRepository(
    request: schedule.StartVerifyRequest,
    requestKey: string | null,
  ): Promise<ShownRow> {
    const known = await this.known(requestKey)
    if (known) return known
    const { repositories } = await this.services.catalog.listRepositories({
      pageSize,
      pageToken: '',
    })
    // Not asked of the mover: one that is locked, or damaged, is verified all the same.
    const repository = repositories.find(({ name }) => name === request.repository)
    if (!repository) {
      throw new BackupError(
        'NOT_FOUND',
        `find ${request.repository}: there is none of that name; list the repositories`,
        { name: request.repository },
      )
    }
    const id = newRunId(wallMs())
    const verify = {
      ...{ sessionId: id, folder: repository.folder, backupId: '', firstBackupIds: [] },
      ...{ level: request.level, bytesPerSecond: request.bytesPerSecond },
    }
    return await this.store.insert({
      ...newRun(id, requestKey, Kind.VERIFY, repository.name),
      plan: { ...planIn(repository), verify },
    })
  }

  /** REQUIRES: the fields of `request` are checked. */
  async collect(
    request: schedule.StartCollectRequest,
    requestKey: string | null,
  ): Promise<ShownRow> {
    const known = await this.known(requestKey)
    if (known) return known
    const repository = await this.repository(request.repository)
    const id = newRunId(wallMs())
    const { dryRun } = request
    const { folder, maintenance } = repository
    const undoDuration = request.undoDuration ?? maintenance?.undoDuration
    const bytesPerSecond = request.bytesPerSecond || (maintenance?.collectBytesPerSecond ?? 0n)
    const collect = {
      ...{ sessionId: id, folder, token: undefined, undoDuration, dryRun },
      bytesPerSecond,
    }
    return await this.store.insert({
      ...newRun(id, requestKey, Kind.COLLECT, repository.name),
      plan: { ...planIn(repository), collect },
    })
  }

  /** `name` may be empty when there is only one repository. */
  async save(name: string, requestKey: string | null): Promise<ShownRow> {
    const known = await this.known(requestKey)
    if (known) return known
    const repository = await this.repository(name)
    const id = newRunId(wallMs())
    return await this.store.insert({
      ...newRun(id, requestKey, Kind.SAVE, repository.name),
      // Two at once would fence each other.
      vmTaken: `${installationVm}/${repository.repositoryId}`,
      detail: schedule.Run.fromPartial({ backup: `${repository.name}/backups/${id}` }),
      plan: { ...planIn(repository), save: true },
    })
  }

  /** Errors: ARGUMENT_INVALID when the policy has no retention. */
  async retain(policy: schedule.Policy, requestKey: string | null): Promise<ShownRow> {
    const known = await this.known(requestKey)
    if (known) return known
    if (!policy.retention && policy.vmRetentions.length === 0) {
      throw argumentInvalid(
        'name',
        policy.name,
        'the policy keeps everything: give it a retention first',
      )
    }
    const repository = await this.repository(policy.repository)
    return await this.store.insert({
      ...newRun(newRunId(wallMs()), requestKey, Kind.RETAIN, repository.name),
      detail: schedule.Run.fromPartial({ policy: policy.name }),
      plan: { ...planIn(repository), retain: policy },
    })
  }

  /**
   * The same for a policy that is due. Null: it keeps everything, or an earlier retention of it still
   * waits. One that cannot be queued is seen as a run that has failed; throws only when another
   * service is silent.
   */
  async retainDue(policy: schedule.Policy, requestKey: string): Promise<ShownRow | null> {
    if (!policy.retention && policy.vmRetentions.length === 0) return null
    if (await this.store.hasUnfinished(Kind.RETAIN, policy.name)) return null
    return await this.retain(policy, requestKey).catch((thrown: unknown) => {
      const failure = asBackupError(thrown)
      if (!failure || isSilence(failure)) throw thrown
      return this.store.insert({
        ...newRun(newRunId(wallMs()), requestKey, Kind.RETAIN, policy.repository),
        state: State.FAILED,
        detail: schedule.Run.fromPartial({ policy: policy.name, error: errorOf(failure) }),
      })
    })
  }

  /** A run of maintenance that could not be queued, so that it is seen. */
  failedMaintenance(
    kind: Kind,
    repository: string,
    requestKey: string,
    failure: BackupError,
  ): Promise<ShownRow> {
    return this.store.insert({
      ...newRun(newRunId(wallMs()), requestKey, kind, repository),
      state: State.FAILED,
      detail: schedule.Run.fromPartial({ error: errorOf(failure) }),
    })
  }

  /** Errors: NOT_FOUND, ARGUMENT_INVALID. */
  async repository(name: string): Promise<catalog.Repository> {
    if (name !== '') {
      const { repository } = await this.services.catalog.getRepository({ name })
      return present(repository, 'repository')
    }
    const { repositories } = await this.services.catalog.listRepositories({
      pageSize: 2,
      pageToken: '',
    })
    const [only, ...others] = repositories
    if (!only) {
      throw new BackupError(
        'NOT_FOUND',
        'choose the repository: there is none yet; create one with `blockferry repository create`',
        { name: 'repositories' },
      )
    }
    if (others.length > 0) {
      throw argumentInvalid('repository', '', 'there are several repositories; name one')
    }
    return only
  }

  private async vm(name: string, forBackup = true): Promise<snapshot.Vm> {
    const vm = present((await this.services.snapshot.getVm({ name })).vm, 'VM')
    const { refusalReason, refusalMessage, identity } = vm
    if (forBackup && refusalReason !== '') {
      const reason = isReason(refusalReason) ? refusalReason : 'VM_STATE_UNSUITABLE'
      throw new BackupError(reason, refusalMessage, { vm: identity || name })
    }
    return vm
  }

  /** The backup as the catalog knows it, or else as its manifest says. Errors: BACKUP_NOT_FOUND. */
  private async backupOf(
    name: string,
  ): Promise<{ repository: catalog.Repository; backup: Backup }> {
    const { repository: repositoryName, id } = checkBackupName(name)
    const repository = await this.repository(repositoryName)
    const known = await this.services.catalog.getBackup({ name }).catch((thrown: unknown) => {
      if (asBackupError(thrown)?.reason === 'BACKUP_NOT_FOUND') return null
      throw thrown
    })
    const backup =
      known?.backup ??
      (await this.manifests(repository.folder, '')).find((each) => each.name.endsWith(`/${id}`))
    if (backup) return { repository, backup }
    throw new BackupError(
      'BACKUP_NOT_FOUND',
      `find backup ${id}: ${repositoryName} has none of that id; list its backups`,
      { backup: id, repository: repositoryName },
    )
  }

  private async manifests(folder: string, vmIdentity: string): Promise<Backup[]> {
    const backups: Backup[] = []
    let pageToken = ''
    do {
      const request = { folder, vmIdentity, pageSize, pageToken }
      const page = await this.services.move.listManifests(request)
      backups.push(...page.backups)
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    return backups
  }

  private known(requestKey: string | null): Promise<ShownRow | null> {
    return requestKey === null ? Promise.resolve(null) : this.store.ofRequest(requestKey)
  }
}

const newRun = (id: string, requestKey: string | null, kind: Kind, repository: string): NewRun => ({
  id,
  requestKey,
  kind,
  state: State.QUEUED,
  vmIdentity: '',
  vmDisplayName: '',
  host: '',
  repository,
  vmTaken: null,
  detail: schedule.Run.fromPartial({}),
  plan: { repositoryFolder: '', repositoryId: '' },
})

const planIn = ({ folder, repositoryId }: catalog.Repository) => ({
  repositoryFolder: folder,
  repositoryId,
})

const imagesVm = (name: string): snapshot.Vm =>
  snapshot.Vm.fromPartial({ identity: name, displayName: name })

function present<T>(value: T | undefined, what: string): T {
  if (value !== undefined) return value
  throw new BackupError('INTERNAL', `another service answered without the ${what}`)
}
