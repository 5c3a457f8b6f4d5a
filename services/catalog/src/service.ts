import { wallMs } from '@blockferry/core'
import { argumentInvalid, BackupError } from '@blockferry/errors'
import {
  catalog,
  maintenanceDefault,
  type move,
  backup as proto,
  retention as retentionProto,
} from '@blockferry/proto'
import { checkMaintenance, checkRetention } from '@blockferry/repository'
import { cutPage, type Handlers, pageOf, type RpcClient } from '@blockferry/rpc'
import type { CatalogConfig } from './config.ts'
import {
  backupNameOf,
  checkPolicyName,
  checkRepositoryId,
  repositoryNotFound,
  repositoryOf,
} from './names.ts'
import { type Rebuilt, rebuild } from './rebuild.ts'
import { planRetention } from './retention_plan.ts'
import type { Store, StoredRepository, StoredVm } from './store.ts'

export interface CatalogParts {
  config: CatalogConfig
  store: Store
  mover: RpcClient<move.MoveServiceServer>
}

/** The RPCs of the catalog service. */
export function catalogHandlers(parts: CatalogParts): Handlers<catalog.CatalogServiceServer> {
  const { store, mover } = parts
  return {
    createRepository: (request, { signal }) => createRepository(parts, request, signal),
    getRepository: async ({ name }, { signal }) => {
      const repository = await findRepository(store, name)
      const { folder } = repository
      const { repository: live } = await mover.inspectRepository({ folder }, { signal })
      const { storedBytes = 0n, encrypted = false, locked = false } = live ?? {}
      return { repository: { ...describe(repository), storedBytes, encrypted, locked } }
    },
    updateRepository: async ({ name, maintenance }) => {
      if (!maintenance) throw argumentInvalid('maintenance', '', 'give what to change it to')
      const checked = checkMaintenance('maintenance', maintenance)
      const id = repositoryOf('name', name)
      if (!(await store.updateRepository(id, checked))) throw repositoryNotFound(id)
      return { repository: describe(await findRepository(store, name)) }
    },
    unlockRepository: async ({ name, passphraseFile }, { signal }) => {
      const { folder } = await findRepository(store, name)
      return await mover.unlockRepository({ folder, passphraseFile }, { signal })
    },
    listKeySlots: async ({ name }, { signal }) => {
      const { folder } = await findRepository(store, name)
      return await mover.listKeySlots({ folder }, { signal })
    },
    addKeySlot: async ({ name, passphraseFile, label }, { signal }) => {
      const { folder } = await findRepository(store, name)
      return await mover.addKeySlot({ folder, passphraseFile, label }, { signal })
    },
    removeKeySlot: async ({ name, slotId }, { signal }) => {
      const { folder } = await findRepository(store, name)
      return await mover.removeKeySlot({ folder, slotId }, { signal })
    },
    advanceTime: async ({ name, confirmClock }, { signal }) => {
      const { folder } = await findRepository(store, name)
      return await mover.advanceTime({ folder, confirmClock }, { signal })
    },
    listRepositories: async (request) => {
      const page = pageOf(request)
      const found = (await store.listRepositories(page)).map(describe)
      const { items, nextPageToken } = cutPage(found, page, catalog.Repository)
      return { repositories: items, nextPageToken }
    },
    deleteRepository: async ({ name }) => {
      const repository = repositoryOf('name', name)
      if (!(await store.deleteRepository(repository))) throw repositoryNotFound(repository)
      return {}
    },
    recordBackup: async ({ backup: message }) => {
      if (!message) throw argumentInvalid('backup', '', 'give the backup to record')
      if (message.vmIdentity === '') {
        throw argumentInvalid('backup.vm_identity', '', 'name the VM')
      }
      const name = backupNameOf('backup.name', message.name)
      await findRepository(store, `repositories/${name.repository}`)
      await store.putBackup({ ...name, message })
      return { backup: message }
    },
    recordVerification: async ({ parent, provenBackups, damagedBackups }) => {
      const { name } = await findRepository(store, parent, 'parent')
      await store.recordVerification(name, provenBackups, false)
      await store.recordVerification(name, damagedBackups, true)
      return {}
    },
    getBackup: async ({ name }) => ({ backup: await findBackup(store, name) }),
    listBackups: async (request) => {
      const page = pageOf(request)
      const { parent, vm } = request
      const repository = parent === '' ? '' : repositoryOf('parent', parent)
      if (repository !== '') await findRepository(store, parent)
      const found = await store.listBackups(repository, vm, page, request.showRemoved)
      const { items, nextPageToken } = cutPage(found, page, proto.Backup)
      return { backups: items, nextPageToken }
    },
    removeBackup: ({ name }, { signal }) =>
      changeBackup(parts, name, (backup) => mover.removeBackup(backup, { signal })),
    undeleteBackup: ({ name }, { signal }) =>
      changeBackup(parts, name, (backup) => mover.undeleteBackup(backup, { signal })),
    holdBackup: ({ name }, { signal }) =>
      changeBackup(parts, name, (backup) => mover.holdBackup(backup, { signal })),
    releaseBackup: ({ name }, { signal }) =>
      changeBackup(parts, name, (backup) => mover.releaseBackup(backup, { signal })),
    listProtectedVms: async (request) => {
      const page = pageOf(request)
      const found = (await store.listVms(page)).map(describeVm)
      const { items, nextPageToken } = cutPage(found, page, catalog.ProtectedVm)
      return { vms: items, nextPageToken }
    },
    planRetention: (request, { signal }) => planPage(parts, request, signal),
    rebuildCatalog: async ({ name }, { signal }) => {
      const repositories =
        name === '' ? await allRepositories(store) : [await findRepository(store, name)]
      const rebuilt: Rebuilt[] = []
      for (const repository of repositories)
        rebuilt.push(await rebuildOne(parts, repository, signal))
      const sum = (each: (one: Rebuilt) => number): bigint =>
        BigInt(rebuilt.reduce((total, one) => total + each(one), 0))
      return {
        backupCount: sum(({ backupCount }) => backupCount),
        removedCount: sum(({ removedCount }) => removedCount),
        damagedManifests: rebuilt.flatMap(({ damaged }) => damaged),
      }
    },
  }
}

const rebuildOne = (
  parts: CatalogParts,
  repository: StoredRepository,
  signal: AbortSignal,
): Promise<Rebuilt> => rebuild(repository, parts.store, parts, signal)

async function planPage(
  parts: CatalogParts,
  request: catalog.PlanRetentionRequest,
  signal: AbortSignal,
): Promise<catalog.PlanRetentionResponse> {
  const { store } = parts
  const { parent, vm, retention, planTime } = request
  const page = pageOf(request)
  if (vm === '') throw argumentInvalid('vm', vm, 'give the identity or the name of a VM')
  const plan = {
    repository: await findRepository(store, parent, 'parent'),
    vm,
    policy: checkPolicyName('policy', request.policy),
    retention: retention && checkRetention('retention', retention),
    nowMs: planTime?.getTime() ?? (await store.nowMs()),
  }
  const decisions = await planRetention(plan, store, parts, signal)
  const found = decisions.slice(page.offset)
  const { items, nextPageToken } = cutPage(found, page, retentionProto.RetentionDecision)
  return { decisions: items, nextPageToken }
}

/**
 * Folder first, entry second: a crash between the two leaves an empty repository without name,
 * which can be adopted.
 */
async function createRepository(
  parts: CatalogParts,
  request: catalog.CreateRepositoryRequest,
  signal: AbortSignal,
): Promise<catalog.CreateRepositoryResponse> {
  const { store, mover } = parts
  const { repositoryId: name, folder, adopt, requestId, passphraseFile } = request
  checkRepositoryId(name)
  const maintenance = checkMaintenance('maintenance', request.maintenance ?? maintenanceDefault)
  if (!folder.startsWith('/')) throw argumentInvalid('folder', folder, 'give an absolute path')
  const known = await store.findRepository(name)
  if (known) {
    checkRepeated(known, request)
    const { repository: live } = await mover.inspectRepository({ folder }, { signal })
    const repository = { ...describe(known), encrypted: live?.encrypted ?? false }
    return { repository, recoveryKey: '' }
  }
  if (adopt && passphraseFile !== '') {
    await mover.unlockRepository({ folder, passphraseFile }, { signal })
  }
  const { repository: live, recoveryKey } = adopt
    ? { ...(await mover.inspectRepository({ folder }, { signal })), recoveryKey: '' }
    : await mover.createRepository({ folder, passphraseFile }, { signal })
  const repository = {
    name,
    folder,
    repositoryId: live?.repositoryId ?? '',
    requestId,
    createTime: new Date(wallMs()),
    backupCount: 0n,
    maintenance,
  }
  const answer = (backupCount: bigint) => ({
    repository: {
      ...describe({ ...repository, backupCount }),
      encrypted: live?.encrypted ?? false,
    },
    recoveryKey,
  })
  await store.insertRepository(repository)
  if (!adopt) return answer(0n)
  try {
    const { backupCount } = await rebuildOne(parts, repository, signal)
    return answer(BigInt(backupCount))
  } catch (thrown) {
    // Half taken in is not taken in.
    await store.deleteRepository(name)
    throw thrown
  }
}

/** The same request again gets the same answer; another one finds the name taken. */
function checkRepeated(
  known: StoredRepository,
  { requestId, folder }: catalog.CreateRepositoryRequest,
): void {
  if (requestId !== '' && known.requestId === requestId && known.folder === folder) return
  const name = `repositories/${known.name}`
  throw new BackupError(
    'ALREADY_EXISTS',
    `create ${name}: there is one of that name in ${known.folder}; choose another name`,
    { name, folder: known.folder },
  )
}

async function findRepository(
  store: Store,
  name: string,
  field = 'name',
): Promise<StoredRepository> {
  const id = repositoryOf(field, name)
  const repository = await store.findRepository(id)
  if (!repository) throw repositoryNotFound(id)
  return repository
}

async function findBackup(store: Store, name: string): Promise<proto.Backup> {
  const backup = await store.findBackup(backupNameOf('name', name))
  if (backup) return backup
  throw new BackupError(
    'BACKUP_NOT_FOUND',
    `find ${name}: the catalog has no such backup; list the backups, or rebuild the catalog`,
    { name },
  )
}

/** The repository's marks are the truth; the catalog notes what they are after the change. */
async function changeBackup(
  { store }: CatalogParts,
  name: string,
  change: (backup: move.RemoveBackupRequest) => Promise<{ backup?: proto.Backup | undefined }>,
): Promise<{ backup: proto.Backup }> {
  const { vmIdentity } = await findBackup(store, name)
  const { repository, backup: backupId } = backupNameOf('name', name)
  const { folder } = await findRepository(store, `repositories/${repository}`)
  const { backup } = await change({ folder, vmIdentity, backupId })
  if (!backup) throw new BackupError('INTERNAL', 'the move service answered without the backup')
  await store.putBackup({ repository, backup: backupId, message: backup })
  return { backup: { ...backup, name } }
}

async function allRepositories(store: Store): Promise<StoredRepository[]> {
  const all: StoredRepository[] = []
  const page = { size: 1000, offset: 0 }
  for (;;) {
    const rows = await store.listRepositories(page)
    all.push(...rows.slice(0, page.size))
    if (rows.length <= page.size) return all
    page.offset += page.size
  }
}

// The incarnation is the scheduler's: it draws one per database and knows its own.
const describe = (repository: StoredRepository): catalog.Repository => ({
  name: `repositories/${repository.name}`,
  folder: repository.folder,
  repositoryId: repository.repositoryId,
  incarnation: 0n,
  createTime: repository.createTime,
  storedBytes: 0n,
  backupCount: repository.backupCount,
  encrypted: false,
  locked: false,
  maintenance: repository.maintenance,
})

const describeVm = ({ identity, displayName, backupCount, latest, storedBytes }: StoredVm) => ({
  vmIdentity: identity,
  vmDisplayName: displayName,
  backupCount,
  latestBackup: latest.message.name,
  latestPointTime: latest.message.pointTime,
  sizeBytes: latest.message.disks.reduce((total, disk) => total + disk.sizeBytes, 0n),
  storedBytes,
})
