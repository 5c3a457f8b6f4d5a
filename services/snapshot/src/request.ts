// What callers send, checked: every field that cannot be used is named.
import { isAbsolute } from 'node:path'
import { argumentInvalid } from '@blockferry/errors'
import type { BaseCandidate, BeginPoint } from '@blockferry/hypervisor'
import { msFromDuration, type snapshot } from '@blockferry/proto'
import type { SnapshotLimits } from './config.ts'
import { imagesHost, type Platform } from './host.ts'

const hostIdShape = /^[A-Za-z0-9_.-]{1,63}$/
const textMax = 4096
const imagesMax = 256

export function checkPointId(pointId: string): string {
  if (/^[0-9a-f]{12}$/.test(pointId)) return pointId
  throw argumentInvalid('point_id', pointId, 'give 12 lower-case hex digits')
}

export function checkHostName(name: string, field: string): string {
  const id = name.startsWith('hosts/') ? name.slice('hosts/'.length) : ''
  if (hostIdShape.test(id)) return name
  throw argumentInvalid(field, name, 'give hosts/{host}')
}

export function newHostName(hostId: string): string {
  const name = `hosts/${hostId}`
  if (hostIdShape.test(hostId) && name !== imagesHost) return name
  const advice = 'give 1 to 63 letters, digits, "-", "_" and ".", and not "-" alone'
  throw argumentInvalid('host_id', hostId, advice)
}

export function platformOf(host: snapshot.Host | undefined): Platform {
  const platform = host?.platform
  if (platform?.$case === 'folder') {
    return { folder: { folder: checkPath('host.folder.folder', platform.value.folder) } }
  }
  if (platform?.$case !== 'qemu') {
    throw argumentInvalid('host.platform', '', 'say how the VMs are reached: qemu or folder')
  }
  const { monitorFolder, monitorSockets, fleeceFolder } = platform.value
  if (monitorFolder === '' && monitorSockets.length === 0) {
    throw argumentInvalid('host.qemu.monitor_folder', '', 'name a folder or monitor sockets')
  }
  if (monitorFolder) checkPath('host.qemu.monitor_folder', monitorFolder)
  for (const socket of monitorSockets) checkPath('host.qemu.monitor_sockets', socket)
  if (fleeceFolder) checkPath('host.qemu.fleece_folder', fleeceFolder)
  return { qemu: { monitorFolder, monitorSockets, fleeceFolder } }
}

/** The lease a caller asks for, or the default. */
export function leaseOf(
  duration: snapshot.HoldPointRequest['leaseDuration'],
  limits: SnapshotLimits,
): number {
  if (duration === undefined) return limits.leaseMs
  const ms = msFromDuration(duration)
  if (ms > 0 && ms <= limits.leaseMsMax) return ms
  const advice = `give more than 0 and at most ${limits.leaseMsMax / 1000} s`
  throw argumentInvalid('lease_duration', `${ms} ms`, advice)
}

/** The request without its VM's identity, which has to be found first. */
export function beginOf(request: snapshot.BeginPointRequest): Omit<BeginPoint, 'vmIdentity'> {
  const { repositoryId, committedPointIds, keptPointIds } = request
  checkText('vm', request.vm)
  if (!/^[0-9a-f]{32}$/.test(repositoryId)) {
    throw argumentInvalid('repository_id', repositoryId, 'give 32 lower-case hex digits')
  }
  if (request.images.length > imagesMax) {
    throw argumentInvalid('images', `${request.images.length}`, `give at most ${imagesMax}`)
  }
  for (const image of request.images) checkPath('images', image)
  for (const pointId of [...committedPointIds, ...keptPointIds]) checkPointId(pointId)
  return {
    pointId: checkPointId(request.pointId),
    repositoryId,
    bases: request.bases.map(baseOf),
    committedPointIds,
    keptPointIds,
    quiesce: !request.skipQuiesce,
  }
}

const baseOf = (base: snapshot.BaseCandidate): BaseCandidate => ({
  backupId: base.backup,
  pointId: checkPointId(base.pointId),
  disks: base.disks.map(({ disk, sizeBytes }) => ({ id: disk, sizeBytes: Number(sizeBytes) })),
})

export function checkText(field: string, text: string): string {
  if (text !== '' && text.length <= textMax) return text
  throw argumentInvalid(field, text, `give 1 to ${textMax} characters`)
}

function checkPath(field: string, path: string): string {
  if (isAbsolute(path) && path.length <= textMax && !path.includes('\0')) return path
  throw argumentInvalid(field, path, 'give an absolute path')
}
