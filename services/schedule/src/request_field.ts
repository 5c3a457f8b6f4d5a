// Checks of request fields. Each refuses with ARGUMENT_INVALID and says what to give instead.
import { isAbsolute, normalize } from 'node:path'
import { argumentInvalid } from '@blockferry/errors'
import { backup, move, msFromDuration, type schedule } from '@blockferry/proto'
import { checkRepeat, checkRetention, checkTags } from '@blockferry/repository'
import type { PolicySettings } from './policy_store.ts'

const textSizeMax = 1024
const requestIdSizeMax = 128
const vmsMax = 10_000
const imagesMax = 64
const suppliedDisksMax = 256
const lockMsMax = 3_650 * 24 * 3_600_000
const zstdLevelDefault = 3
const zstdLevelMax = 19

const idPattern = /^[A-Za-z0-9_.-]{1,63}$/
const backupPattern = /^(repositories\/[A-Za-z0-9_.-]{1,63})\/backups\/([A-Za-z0-9_.-]{1,63})$/

/** Text that can be stored and shown: not too long, without the byte that ends C strings. */
export function checkText(field: string, value: string): string {
  if (Buffer.byteLength(value) > textSizeMax) {
    throw argumentInvalid(field, value, `give at most ${textSizeMax} bytes`)
  }
  if (value.includes('\0')) throw argumentInvalid(field, value, 'leave out the NUL character')
  return value
}

/** Null when the caller gave none. */
export function requestKey(method: string, requestId: string): string | null {
  if (requestId === '') return null
  checkText('request_id', requestId)
  if (requestId.length > requestIdSizeMax) {
    throw argumentInvalid('request_id', requestId, `give at most ${requestIdSizeMax} characters`)
  }
  return `${method}/${requestId}`
}

export function checkVm(field: string, value: string): string {
  if (value.trim() === '') {
    throw argumentInvalid(field, value, 'give the identity or the name of a VM')
  }
  return checkText(field, value)
}

/** The id in `<collection>/<id>`. */
export function checkName(field: string, value: string, collection: string): string {
  const id = value.startsWith(`${collection}/`) ? value.slice(collection.length + 1) : ''
  if (idPattern.test(id)) return id
  throw argumentInvalid(field, value, `give ${collection}/ and letters, digits, -, _ or .`)
}

export function checkPolicyId(value: string): string {
  if (idPattern.test(value)) return value
  throw argumentInvalid('policy_id', value, 'give 1 to 63 letters, digits, -, _ or .')
}

export function checkBackupName(value: string): { repository: string; id: string } {
  const [, repository, id] = backupPattern.exec(value) ?? []
  if (repository && id) return { repository, id }
  throw argumentInvalid('backup', value, 'give repositories/{repository}/backups/{backup}')
}

/** The level that is meant: unset means incremental. */
export function checkLevel(field: string, level: backup.Level): backup.Level {
  const { UNSPECIFIED, INCREMENTAL, FULL, DIFFERENTIAL } = backup.Level
  if (level === UNSPECIFIED) return INCREMENTAL
  if ([FULL, INCREMENTAL, DIFFERENTIAL].includes(level)) return level
  throw argumentInvalid(field, String(level), 'give full, incremental or differential')
}

/** The compression that is meant: unset means LZ4. */
export function checkCompression(
  field: string,
  compression: move.Compression | undefined,
): move.Compression {
  const { UNSPECIFIED, LZ4, ZSTD, STORED } = move.Compression_Codec
  const { codec: asked, level } = compression ?? { codec: UNSPECIFIED, level: 0 }
  const codec = asked === UNSPECIFIED ? LZ4 : asked
  if (![LZ4, ZSTD, STORED].includes(codec)) {
    throw argumentInvalid(`${field}.codec`, String(codec), 'give LZ4, ZSTD or STORED')
  }
  if (codec !== ZSTD) {
    if (level === 0) return { codec, level }
    throw argumentInvalid(`${field}.level`, String(level), 'give 0: only zstd has levels')
  }
  if (level >= 0 && level <= zstdLevelMax) return { codec, level: level || zstdLevelDefault }
  throw argumentInvalid(`${field}.level`, String(level), `give 1 to ${zstdLevelMax}, or 0`)
}

/** An absolute path without `..`, in one way of writing. */
export function checkPath(field: string, value: string): string {
  checkText(field, value)
  if (!isAbsolute(value)) throw argumentInvalid(field, value, 'give an absolute path')
  if (value.split('/').includes('..')) throw argumentInvalid(field, value, 'give a path without ..')
  const path = normalize(value)
  return path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path
}

export function checkImages(images: string[]): string[] {
  if (images.length > imagesMax) {
    throw argumentInvalid('images', String(images.length), `give at most ${imagesMax} images`)
  }
  const paths = images.map((image) => checkPath('images', image))
  refuseTwice('images', paths)
  return paths
}

export function checkSuppliedChanges(request: schedule.StartBackupRequest): void {
  const { suppliedChanges, baseBackup } = request
  if (suppliedChanges.length === 0 && baseBackup !== '') {
    throw argumentInvalid(
      'base_backup',
      baseBackup,
      'give supplied_changes with it, or leave it out',
    )
  }
  if (suppliedChanges.length > suppliedDisksMax) {
    const count = String(suppliedChanges.length)
    throw argumentInvalid('supplied_changes', count, `give at most ${suppliedDisksMax} disks`)
  }
  refuseTwice(
    'supplied_changes.disk',
    suppliedChanges.map(({ disk }) => checkText('supplied_changes.disk', disk)),
  )
  for (const { disk, extents } of suppliedChanges) checkExtents(disk, extents)
}

function checkExtents(disk: string, extents: { byteOffset: bigint; sizeBytes: bigint }[]): void {
  let endBefore = 0n
  for (const { byteOffset, sizeBytes } of extents) {
    if (byteOffset < endBefore || sizeBytes <= 0n) {
      throw argumentInvalid(
        'supplied_changes.extents',
        `${disk}: offset ${byteOffset}, size ${sizeBytes}`,
        'give extents of at least one byte, ascending and not overlapping',
      )
    }
    endBefore = byteOffset + sizeBytes
  }
}

export function checkPolicy(policy: schedule.Policy | undefined): PolicySettings {
  if (!policy) throw argumentInvalid('policy', '', 'give the policy')
  if (policy.vms.length === 0 || policy.vms.length > vmsMax) {
    const count = String(policy.vms.length)
    throw argumentInvalid('policy.vms', count, `give 1 to ${vmsMax} VMs`)
  }
  const vms = policy.vms.map((vm) => checkVm('policy.vms', vm))
  refuseTwice('policy.vms', vms)
  checkName('policy.repository', policy.repository, 'repositories')
  const repeat = checkRepeat('policy.repeat_duration', policy.repeatDuration)
  return {
    vms,
    repository: policy.repository,
    repeatMs: repeat ? msFromDuration(repeat) : null,
    level: checkLevel('policy.level', policy.level),
    skipQuiesce: policy.skipQuiesce,
    paused: policy.paused,
    compression: checkCompression('policy.compression', policy.compression),
    retention: policy.retention ? checkRetention('policy.retention', policy.retention) : null,
    vmRetentions: checkVmRetentions(policy),
    tags: checkTags('policy.tags', policy.tags),
    lockMs: checkLock('policy.lock_duration', policy.lockDuration),
  }
}

/** Milliseconds, whole seconds; 0: no lock. */
export function checkLock(field: string, lock: schedule.Policy['lockDuration']): number {
  const ms = lock ? msFromDuration(lock) : 0
  if (ms >= 0 && ms <= lockMsMax && ms % 1_000 === 0) return ms
  throw argumentInvalid(field, `${ms} ms`, 'give whole seconds up to 3650 days, or nothing')
}

function checkVmRetentions({ vms, vmRetentions }: schedule.Policy): schedule.VmRetention[] {
  const field = 'policy.vm_retentions'
  const known = new Set(vms)
  const stranger = vmRetentions.find(({ vm }) => !known.has(vm))
  if (stranger) {
    throw argumentInvalid(`${field}.vm`, stranger.vm, 'name a VM as it stands in policy.vms')
  }
  refuseTwice(
    `${field}.vm`,
    vmRetentions.map(({ vm }) => vm),
  )
  return vmRetentions.map(({ vm, retention }) => ({
    vm,
    retention: retention && checkRetention(`${field}.retention`, retention),
  }))
}

export function refuseTwice(field: string, values: string[]): void {
  const twice = values.find((value, index) => values.indexOf(value) !== index)
  if (twice !== undefined) throw argumentInvalid(field, twice, 'name it once')
}
