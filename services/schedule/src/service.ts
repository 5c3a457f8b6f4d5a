// The RPCs of schedule: checks the fields, asks the others, answers with protos.
import { argumentInvalid, BackupError } from '@blockferry/errors'
import { imageFormatName, imageFormatNames, move, schedule } from '@blockferry/proto'
import { checkRate, checkTags, checkUndo } from '@blockferry/repository'
import { type Call, cutPage, type Handlers, pageOf } from '@blockferry/rpc'
import type { ScheduleLimits } from './config.ts'
import { RunCancelled } from './held_run.ts'
import type { Holder } from './holder.ts'
import { errorOf } from './holder.ts'
import { type PolicyRow, type PolicyStore, publicPolicy } from './policy_store.ts'
import type { Queue } from './queue.ts'
import {
  checkBackupName,
  checkCompression,
  checkImages,
  checkLevel,
  checkLock,
  checkName,
  checkPath,
  checkPolicy,
  checkPolicyId,
  checkSuppliedChanges,
  checkText,
  checkVm,
  refuseTwice,
  requestKey,
} from './request_field.ts'
import { planPage } from './retention_plan.ts'
import { hasEnded, publicRun, type ShownRow, stateWord } from './run_row.ts'
import type { RunStore } from './run_store.ts'
import type { Services } from './services.ts'

export interface ServiceParts {
  runs: RunStore
  policies: PolicyStore
  queue: Queue
  catalog: Services['catalog']
  holder: Holder
  limits: ScheduleLimits
  /** Looks for runs to claim now instead of at the next tick. */
  wake: () => void
}

export function scheduleHandlers(parts: ServiceParts): Handlers<schedule.ScheduleServiceServer> {
  return { ...policyHandlers(parts), ...startHandlers(parts), ...runHandlers(parts) }
}

function policyHandlers({ policies, queue, catalog, wake }: ServiceParts) {
  const find = async (field: string, name: string): Promise<PolicyRow> => {
    const row = await policies.find(checkName(field, name, 'policies'))
    if (row) return row
    throw notFound(name, 'list the policies')
  }
  return {
    async createPolicy({ policyId, policy, requestId }) {
      const name = checkPolicyId(policyId)
      requestKey('CreatePolicy', requestId)
      const settings = checkPolicy(policy)
      await queue.repository(settings.repository)
      const created = await policies.insert(name, requestId, settings)
      if (created) return { policy: publicPolicy(created) }
      const existing = await policies.find(name)
      if (existing && requestId !== '' && existing.requestId === requestId) {
        return { policy: publicPolicy(existing) }
      }
      throw new BackupError(
        'ALREADY_EXISTS',
        `create policy ${name}: there is one of that name; update it or choose another name`,
        { name: `policies/${name}` },
      )
    },

    async getPolicy({ name }) {
      return { policy: publicPolicy(await find('name', name)) }
    },

    async listPolicies(request) {
      const page = pageOf(request)
      const rows = await policies.list(page.size + 1, page.offset)
      const { items, nextPageToken } = cutPage(rows.map(publicPolicy), page, schedule.Policy)
      return { policies: items, nextPageToken }
    },

    async updatePolicy({ policy }) {
      const settings = checkPolicy(policy)
      const shown = policy?.name ?? ''
      const name = checkName('policy.name', shown, 'policies')
      await queue.repository(settings.repository)
      const updated = await policies.update(name, settings)
      if (!updated) throw notFound(shown, 'create it')
      return { policy: publicPolicy(updated) }
    },

    async deletePolicy({ name }) {
      const deleted = await policies.delete(checkName('name', name, 'policies'))
      if (!deleted) throw notFound(name, 'list the policies')
      return {}
    },

    async planRetention(request, { signal }) {
      const policy = publicPolicy(await find('name', request.name))
      return await planPage(policy, request, catalog, signal)
    },

    async startRetention({ name, requestId }) {
      const key = requestKey('StartRetention', requestId)
      const run = await queue.retain(publicPolicy(await find('name', name)), key)
      wake()
      return { run: publicRun(run) }
    },

    async startPolicy({ name, requestId }) {
      const occasion = requestKey('StartPolicy', requestId)
      const runs = await queue.policy(await find('name', name), occasion)
      wake()
      return { runs: runs.map(publicRun) }
    },
  } satisfies Partial<Handlers<schedule.ScheduleServiceServer>>
}

function startHandlers({ queue, wake }: ServiceParts) {
  return {
    async startBackup(request) {
      const key = requestKey('StartBackup', request.requestId)
      checkVm('vm', request.vm)
      if (request.repository !== '') checkName('repository', request.repository, 'repositories')
      checkText('base_backup', request.baseBackup)
      checkSuppliedChanges(request)
      const images = checkImages(request.images)
      const level = checkLevel('level', request.level)
      const compression = checkCompression('compression', request.compression)
      checkTags('tags', request.tags)
      checkLock('lock_duration', request.lockDuration)
      const run = await queue.backup({ ...request, images, level, compression }, key)
      wake()
      return { run: publicRun(run) }
    },

    async startRestore(request) {
      const key = requestKey('StartRestore', request.requestId)
      checkBackupName(request.backup)
      refuseTwice('disks', request.disks)
      for (const disk of request.disks) checkText('disks', disk)
      const targetFolder = checkTarget(request)
      const run = await queue.restore({ ...request, targetFolder }, key)
      wake()
      return { run: publicRun(run) }
    },

    async startVerify(request) {
      const key = requestKey('StartVerify', request.requestId)
      const isWhole = request.repository !== ''
      if (isWhole) checkName('repository', request.repository, 'repositories')
      if (isWhole && request.backup !== '') {
        throw argumentInvalid('backup', request.backup, 'leave it out, or leave out the repository')
      }
      if (!isWhole) checkBackupName(request.backup)
      checkRate('bytes_per_second', request.bytesPerSecond)
      checkVerifyLevel(request)
      const run = await (isWhole
        ? queue.verifyRepository(request, key)
        : queue.verify(request, key))
      wake()
      return { run: publicRun(run) }
    },

    async startSave({ repository, requestId }) {
      const key = requestKey('StartSave', requestId)
      if (repository !== '') checkName('repository', repository, 'repositories')
      const run = await queue.save(repository, key)
      wake()
      return { run: publicRun(run) }
    },

    async startCollect(request) {
      const key = requestKey('StartCollect', request.requestId)
      if (request.repository !== '') checkName('repository', request.repository, 'repositories')
      checkRate('bytes_per_second', request.bytesPerSecond)
      const { undoDuration: undo } = request
      const undoDuration = undo && checkUndo('undo_duration', undo)
      const run = await queue.collect({ ...request, undoDuration }, key)
      wake()
      return { run: publicRun(run) }
    },
  } satisfies Partial<Handlers<schedule.ScheduleServiceServer>>
}

function runHandlers({ runs, holder, limits }: ServiceParts) {
  const find = async (name: string): Promise<ShownRow> => {
    const row = await runs.find(checkName('name', name, 'runs'))
    if (row) return row
    throw notFound(name, 'list the runs')
  }
  return {
    async getRun({ name }) {
      return { run: publicRun(await find(name)) }
    },

    async listRuns(request) {
      const page = pageOf(request)
      const vm = checkText('vm', request.vm)
      const { activeOnly } = request
      const rows = await runs.list({ vm, activeOnly, size: page.size + 1, offset: page.offset })
      const { items, nextPageToken } = cutPage(rows.map(publicRun), page, schedule.Run)
      return { runs: items, nextPageToken }
    },

    async *watchRun({ name }, { signal }: Call) {
      let row = await find(name)
      yield { run: publicRun(row) }
      while (!hasEnded(row.state)) {
        await runs.awaitEnd(row.id, limits.watchMs, signal)
        const changed = await runs.changedSince(row.id, row.version)
        if (!changed) continue
        row = changed
        yield { run: publicRun(row) }
      }
    },

    async cancelRun({ name }) {
      const { id } = await find(name)
      const row = await runs.requestCancel(id, errorOf(new RunCancelled()))
      if (!row) throw notCancellable(await find(name))
      holder.cancel(id)
      return { run: publicRun(row) }
    },
  } satisfies Partial<Handlers<schedule.ScheduleServiceServer>>
}

function checkVerifyLevel({ level, backup }: schedule.StartVerifyRequest): void {
  const { UNSPECIFIED, STORED, BLOCKS } = move.VerifyLevel
  if (level === UNSPECIFIED || level === BLOCKS || (level === STORED && backup === '')) return
  const given = move.verifyLevelToJSON(level)
  throw argumentInvalid('level', given, 'give VERIFY_LEVEL_BLOCKS, or of a repository _STORED')
}

/** The folder of the new images; empty when a VM's own images are replaced. */
function checkTarget(request: schedule.StartRestoreRequest): string {
  const { inPlace, confirmInPlace, differential, targetFolder, format } = request
  if (imageFormatName(format) === null) {
    throw argumentInvalid('format', String(format), `give one of ${imageFormatNames.join(', ')}`)
  }
  if (differential && !inPlace) {
    throw argumentInvalid(
      'differential',
      'true',
      "set in_place with it: it changes the VM's images",
    )
  }
  if (!inPlace) return checkPath('target_folder', targetFolder)
  if (targetFolder !== '') {
    throw argumentInvalid('target_folder', targetFolder, 'leave it out with in_place')
  }
  if (!confirmInPlace) {
    throw argumentInvalid(
      'confirm_in_place',
      'false',
      'set it to replace the images of the VM; without in_place the restore goes to a new folder',
    )
  }
  return ''
}

const notFound = (name: string, advice: string): BackupError =>
  new BackupError('NOT_FOUND', `find ${name}: there is none; ${advice}`, { name })

function notCancellable(row: ShownRow): BackupError {
  const state = stateWord(row.state)
  const why = hasEnded(row.state)
    ? `it has ended (${state})`
    : `its backup is being committed (${state}); delete the backup afterwards if it is not wanted`
  return new BackupError('RUN_NOT_CANCELLABLE', `cancel runs/${row.id}: ${why}`, {
    run: `runs/${row.id}`,
    state,
  })
}
