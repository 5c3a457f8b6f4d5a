// Decides per disk how it is read: which address, which changed blocks, against which base.
// A base counts only when the repository holds its manifest and the disk has the same size there.
import { argumentInvalid, BackupError } from '@blockferry/errors'
import type { BlockSource, ChangedBlocks, Manifest, StoredDisk } from '@blockferry/native'
import { backup as catalog, installationVm, type move, type snapshot } from '@blockferry/proto'

const diskIdSizeMax = 255

export interface PlannedDisk {
  id: string
  sizeBytes: number
  source: BlockSource
  changed: ChangedBlocks
  base: StoredDisk | null
  /** The disk in the VM's newest backup that has it at this size: what patches are laid over. */
  earlier: StoredDisk | null
  /** Backup the changed blocks count from; empty when everything is read. */
  baseBackupId: string
  format: string
  location: string
}

export interface BackupPlan {
  /** In the order of their ids. */
  disks: PlannedDisk[]
  /** Decisions made here. */
  decisions: catalog.DecisionNote[]
}

/** `manifests` are those of the VM. Errors: BASE_MISSING, CHANGED_BLOCKS_INVALID, DISK_…, ARGUMENT_INVALID. */
export function planBackup(
  request: move.StartBackupRequest,
  point: snapshot.Point,
  manifests: Manifest[],
): BackupPlan {
  checkIds(point)
  const supplied = suppliedByDisk(request.suppliedChanges, point)
  const plan: BackupPlan = { disks: [], decisions: [] }
  for (const disk of point.disks) {
    const wanted = wantedChanges(request, disk, supplied)
    const { chosen, decision } = chooseBase(disk, wanted, manifests)
    if (decision) plan.decisions.push(decision)
    plan.disks.push({
      id: disk.disk,
      sizeBytes: sizeOf(disk),
      source: sourceOf(disk),
      format: disk.format,
      location: disk.location,
      earlier: newestOf(disk, manifests),
      ...chosen,
    })
  }
  plan.disks.sort((a, b) => (a.id < b.id ? -1 : 1))
  return plan
}

interface Wanted {
  changed: ChangedBlocks
  baseBackupId: string
  supplied: boolean
}

const everything: Wanted = { changed: { kind: 'all' }, baseBackupId: '', supplied: false }

function wantedChanges(
  request: move.StartBackupRequest,
  disk: snapshot.PointDisk,
  supplied: Map<string, number[]>,
): Wanted {
  if (supplied.size > 0) {
    const extents = supplied.get(disk.disk)
    if (!extents) return everything
    const baseBackupId = request.backup?.baseBackup ?? ''
    if (baseBackupId === '') {
      const advice = 'name the backup that the changed blocks count from'
      throw argumentInvalid('backup.base_backup', '', advice)
    }
    return { changed: { kind: 'extents', extents }, baseBackupId, supplied: true }
  }
  if (disk.changedContext === '') return everything
  if (disk.address?.$case !== 'nbdUri') {
    throw argumentInvalid('point.disks.changed_context', disk.changedContext, 'needs an nbd_uri')
  }
  const baseBackupId = disk.baseBackup || (request.backup?.baseBackup ?? '')
  if (baseBackupId === '') {
    throw argumentInvalid('point.disks.base_backup', '', 'name the backup the context counts from')
  }
  return {
    changed: { kind: 'bitmap', context: disk.changedContext },
    baseBackupId,
    supplied: false,
  }
}

interface Chosen {
  chosen: { changed: ChangedBlocks; base: StoredDisk | null; baseBackupId: string }
  decision?: catalog.DecisionNote
}

function chooseBase(disk: snapshot.PointDisk, wanted: Wanted, manifests: Manifest[]): Chosen {
  const readAll = readEverything(disk)
  if (wanted.changed.kind === 'all') return { chosen: readAll }
  const { baseBackupId, changed } = wanted
  const manifest = manifests.find(({ backup_id }) => backup_id === baseBackupId)
  if (!manifest) throw baseMissing(disk.disk, baseBackupId)
  const stored = manifest.disks.find(({ disk_id }) => disk_id === disk.disk)
  if (!stored) {
    const message = `disk ${disk.disk} is not in base ${baseBackupId}: everything allocated is read`
    return { chosen: readAll, decision: note('DISK_ADDED', disk.disk, message) }
  }
  const sizeBytes = Number(disk.sizeBytes)
  if (stored.size_bytes !== sizeBytes) {
    const message = `disk ${disk.disk} has ${sizeBytes} bytes, in base ${baseBackupId} ${stored.size_bytes}: everything allocated is read`
    return { chosen: readAll, decision: note('DISK_RESIZED', disk.disk, message) }
  }
  const base = { root: stored.root, size_bytes: stored.size_bytes }
  const chosen = { changed, base, baseBackupId }
  if (!wanted.supplied) return { chosen }
  const message = `only blocks of the supplied list are read of disk ${disk.disk}, against ${baseBackupId}`
  return { chosen, decision: note('CHANGED_BLOCKS_SUPPLIED', disk.disk, message) }
}

function newestOf({ disk, sizeBytes }: snapshot.PointDisk, manifests: Manifest[]) {
  const fits = (stored: Manifest['disks'][number]) =>
    stored.disk_id === disk && stored.size_bytes === Number(sizeBytes)
  const stored = manifests.findLast(({ disks }) => disks.some(fits))?.disks.find(fits)
  return stored ? { root: stored.root, size_bytes: stored.size_bytes } : null
}

/** Everything allocated; what an image itself says it does not hold is not even asked for. */
function readEverything({ dataExtents, sizeBytes }: snapshot.PointDisk): Chosen['chosen'] {
  if (!dataExtents) return { changed: everything.changed, base: null, baseBackupId: '' }
  const extents = dataExtents.extents.flatMap((one) => [
    Number(one.byteOffset),
    Number(one.sizeBytes),
  ])
  // Against a disk without data, so that what is not read is a hole.
  const base = { root: null, size_bytes: Number(sizeBytes) }
  return { changed: { kind: 'extents', extents }, base, baseBackupId: '' }
}

const note = (decision: string, disk: string, message: string): catalog.DecisionNote =>
  catalog.DecisionNote.create({ decision, disk, message })

const baseMissing = (disk: string, baseBackupId: string): BackupError =>
  new BackupError(
    'BASE_MISSING',
    `read the changed blocks of disk ${disk}: their base ${baseBackupId} is not in the repository; take a full backup`,
    { disk, base_backup: baseBackupId },
  )

function checkIds(point: snapshot.Point): void {
  if (!/^[0-9a-f]{12}$/.test(point.pointId)) {
    throw argumentInvalid('point.point_id', point.pointId, 'give 12 hex digits')
  }
  const ids = new Set<string>()
  for (const { disk } of point.disks) {
    checkDiskId(disk)
    if (ids.has(disk)) {
      throw new BackupError(
        'DISK_ID_DUPLICATE',
        `back up a VM: two of its disks have the id ${JSON.stringify(disk)}; give each a serial`,
        { disk },
      )
    }
    ids.add(disk)
  }
  // What an installation saves of itself has none.
  const isInstallation = point.vm?.identity.startsWith(installationVm)
  if (ids.size === 0 && !isInstallation) {
    throw argumentInvalid('point.disks', '', 'give at least one disk')
  }
}

function checkDiskId(disk: string): void {
  const size = Buffer.byteLength(disk)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (size > 0 && size <= diskIdSizeMax && !/[\0-\x1f\x7f]/.test(disk)) return
  const advice = `give each disk an id of 1 to ${diskIdSizeMax} bytes without control characters`
  throw argumentInvalid('point.disks.disk', disk, advice)
}

function sizeOf(disk: snapshot.PointDisk): number {
  const size = Number(disk.sizeBytes)
  if (Number.isSafeInteger(size) && size >= 0) return size
  throw argumentInvalid('point.disks.size_bytes', String(disk.sizeBytes), 'give 0 to 2^53-1 bytes')
}

function sourceOf({ disk, address }: snapshot.PointDisk): BlockSource {
  if (address?.$case === 'nbdUri' && address.value.startsWith('nbd')) {
    return { kind: 'nbd', uri: address.value }
  }
  if (address?.$case === 'rawPath' && address.value.startsWith('/')) {
    return { kind: 'raw', path: address.value }
  }
  const advice = `disk ${disk} needs a libnbd URI or an absolute path`
  throw argumentInvalid('point.disks.address', address?.value ?? '', advice)
}

function suppliedByDisk(
  changes: move.SuppliedChanges[],
  point: snapshot.Point,
): Map<string, number[]> {
  const byDisk = new Map<string, number[]>()
  for (const { disk: named, extents } of changes) {
    const only = point.disks.length === 1 ? point.disks[0]?.disk : undefined
    const disk = point.disks.find(({ disk }) => disk === (named || only))
    if (!disk) {
      const known = point.disks.map(({ disk }) => disk).join(', ')
      throw new BackupError(
        'DISK_NOT_FOUND',
        `use supplied changed blocks: the VM has no disk ${JSON.stringify(named)}; its disks are ${known}`,
        { disk: named, disks: known },
      )
    }
    if (byDisk.has(disk.disk)) {
      throw argumentInvalid('supplied_changes.disk', named, 'give one list per disk')
    }
    byDisk.set(disk.disk, flatExtents(disk, extents))
  }
  return byDisk
}

function flatExtents(disk: snapshot.PointDisk, extents: move.ChangedExtent[]): number[] {
  const flat: number[] = []
  let end = 0n
  for (const [index, { byteOffset, sizeBytes }] of extents.entries()) {
    if (byteOffset < end || sizeBytes <= 0n || byteOffset + sizeBytes > disk.sizeBytes) {
      throw new BackupError(
        'CHANGED_BLOCKS_INVALID',
        `use supplied changed blocks of disk ${disk.disk}: extent ${index} (offset ${byteOffset}, size ${sizeBytes}) is empty, out of order, overlaps or passes the disk's end at ${disk.sizeBytes}; give ascending extents within the disk`,
        {
          disk: disk.disk,
          index: String(index),
          offset: String(byteOffset),
          size: String(sizeBytes),
        },
      )
    }
    end = byteOffset + sizeBytes
    flat.push(Number(byteOffset), Number(sizeBytes))
  }
  return flat
}
