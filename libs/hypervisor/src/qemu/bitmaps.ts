// The bitmap rule. Each point leaves one persistent bitmap on every disk, which
// records what is written after the point and never stops. A later point copies
// its base's bitmap into a disabled view in the same transaction that adds its own
// bitmap; only the view is exported. So nothing has to be put back after a failure,
// and any kept point can be the base of an incremental or a differential.
//
// Works on every QMP that has the disks as nodes: QEMU and its storage daemon.
import type { Decision } from '@blockferry/errors'
import type { BaseCandidate } from '../driver.ts'
import type { Qmp } from '../qmp.ts'

/** QEMU's default, and the size of a block of the repository. */
const granularityBytes = 65_536

export interface Bitmap {
  name: string
  recording: boolean
  /** A job or an export uses it now. */
  busy: boolean
  /** QEMU was killed while it recorded: what it says is worthless, it can only be removed. */
  inconsistent: boolean
}

/** A disk as the bitmap rule sees it. */
export interface BitmapDisk {
  id: string
  sizeBytes: number
  /** Node that holds the bitmaps, for example the qcow2 node. */
  node: string
  /** False when the format stores no bitmaps: raw, or qcow2 of version 2. */
  storesBitmaps: boolean
  bitmaps: Bitmap[]
}

/** What one disk is compared with at a new point. */
export interface ChosenBase {
  disk: BitmapDisk
  /** The backup and the bitmap to count changes from, or null: read everything. */
  base: { backupId: string; bitmap: string } | null
  decisions: { decision: Decision; message: string }[]
}

export interface TransactionAction {
  type: string
  data: Record<string, unknown>
}

const repositoryPrefix = (repositoryId: string) => `blockferry.${repositoryId.slice(0, 16)}.`

/** Name of the bitmap that records what changes after a point. */
export const bitmapName = (repositoryId: string, pointId: string): string =>
  `${repositoryPrefix(repositoryId)}${pointId}`

/** Name of the disabled copy of the base's bitmap that a point exports. */
export const viewName = (pointId: string): string => `blockferry-view.${pointId}`

/** The NBD metadata context under which an export shows the view. */
export const viewContext = (pointId: string): string => `qemu:dirty-bitmap:${viewName(pointId)}`

/** Bitmaps of every node by the node's name. */
export async function readBitmaps(qmp: Qmp): Promise<Map<string, Bitmap[]>> {
  const nodes = await qmp.execute<NodeWithBitmaps[]>('query-named-block-nodes', { flat: true })
  return new Map(nodes.map((node) => [node['node-name'], bitmapsOf(node)]))
}

interface NodeWithBitmaps {
  'node-name': string
  'dirty-bitmaps'?: { name?: string; recording: boolean; busy: boolean; inconsistent?: boolean }[]
}

export const bitmapsOf = (node: NodeWithBitmaps): Bitmap[] =>
  (node['dirty-bitmaps'] ?? []).map((bitmap) => ({
    name: bitmap.name ?? '',
    recording: bitmap.recording,
    busy: bitmap.busy,
    inconsistent: bitmap.inconsistent ?? false,
  }))

/**
 * One base for all disks: the candidate that most disks can use, the newest of equals. A disk
 * that cannot use it is read whole, and its decisions say why.
 */
export function chooseBases(
  disks: BitmapDisk[],
  bases: BaseCandidate[],
  repositoryId: string,
): ChosenBase[] {
  let best = bases[0]
  let bestCount = 0
  for (const base of bases) {
    const count = disks.filter((disk) => obstacle(disk, base, repositoryId) === null).length
    if (count > bestCount) [best, bestCount] = [base, count]
  }
  return disks.map((disk) => {
    const found = best ? obstacle(disk, best, repositoryId) : unsupported(disk)
    if (found) return { disk, base: null, decisions: [found] }
    if (!best) return { disk, base: null, decisions: [] }
    const bitmap = bitmapName(repositoryId, best.pointId)
    const message = `disk ${disk.id}: changed blocks since backup ${best.backupId}`
    return {
      disk,
      base: { backupId: best.backupId, bitmap },
      decisions: [{ decision: 'CHANGED_BLOCKS_USED', message }],
    }
  })
}

/** Why a disk's changes since a base are not known, or null when they are. */
function obstacle(
  disk: BitmapDisk,
  base: BaseCandidate,
  repositoryId: string,
): { decision: Decision; message: string } | null {
  const was = base.disks.find(({ id }) => id === disk.id)
  if (!was) {
    const message = `disk ${disk.id} is not in backup ${base.backupId}; it is read whole`
    return { decision: 'DISK_ADDED', message }
  }
  if (was.sizeBytes !== disk.sizeBytes) {
    const message = `disk ${disk.id} had ${was.sizeBytes} bytes in backup ${base.backupId} and has ${disk.sizeBytes} now; it is read whole`
    return { decision: 'DISK_RESIZED', message }
  }
  const never = unsupported(disk)
  if (never) return never
  const bitmap = disk.bitmaps.find(({ name }) => name === bitmapName(repositoryId, base.pointId))
  const state = bitmapFault(bitmap)
  if (state === null) return null
  const message = `disk ${disk.id}: the bitmap of backup ${base.backupId} ${state}; the disk is read whole`
  return { decision: 'CHANGE_TRACKING_LOST', message }
}

function unsupported(disk: BitmapDisk): { decision: Decision; message: string } | null {
  if (disk.storesBitmaps) return null
  const message = `disk ${disk.id}: its format keeps no record of changes; it is always read whole`
  return { decision: 'CHANGE_TRACKING_UNSUPPORTED', message }
}

function bitmapFault(bitmap: Bitmap | undefined): string | null {
  if (!bitmap) return 'is gone'
  if (bitmap.inconsistent) return 'was not closed: QEMU was killed or crashed'
  if (!bitmap.recording) return 'was switched off'
  if (bitmap.busy) return 'is used by another program'
  return null
}

/** The part of a point's transaction that concerns one disk. */
export function bitmapActions(
  chosen: ChosenBase,
  repositoryId: string,
  pointId: string,
): TransactionAction[] {
  const { node, storesBitmaps } = chosen.disk
  const view = viewName(pointId)
  const actions: TransactionAction[] = []
  if (storesBitmaps) {
    const name = bitmapName(repositoryId, pointId)
    const data = { node, name, persistent: true, granularity: granularityBytes }
    actions.push({ type: 'block-dirty-bitmap-add', data })
  }
  if (chosen.base) {
    const data = { node, name: view, disabled: true, granularity: granularityBytes }
    actions.push({ type: 'block-dirty-bitmap-add', data })
    const merge = { node, target: view, bitmaps: [chosen.base.bitmap] }
    actions.push({ type: 'block-dirty-bitmap-merge', data: merge })
  }
  return actions
}

/** Our bitmaps of this repository on a disk that no later point can use. */
export function staleBitmaps(
  disk: BitmapDisk,
  repositoryId: string,
  committedPointIds: string[],
): string[] {
  const prefix = repositoryPrefix(repositoryId)
  const committed = new Set(committedPointIds)
  return disk.bitmaps
    .filter(({ name }) => name.startsWith(prefix))
    .filter(({ name, inconsistent }) => inconsistent || !committed.has(name.slice(prefix.length)))
    .map(({ name }) => name)
}

/** Our bitmaps of this repository on a disk besides those of the points that stay. */
export function bitmapsBesides(
  bitmaps: Bitmap[],
  repositoryId: string,
  keptPointIds: string[],
): string[] {
  const prefix = repositoryPrefix(repositoryId)
  const kept = new Set(keptPointIds.map((pointId) => `${prefix}${pointId}`))
  return bitmaps
    .map(({ name }) => name)
    .filter((name) => name.startsWith(prefix) && !kept.has(name))
}

/** The recording bitmaps of one point, whatever their repository. */
export const bitmapsOfPoint = (bitmaps: Bitmap[], pointId: string): string[] =>
  bitmaps
    .map(({ name }) => name)
    .filter(
      (name) => /^blockferry\.[^.]*\.[0-9a-f]{12}$/.test(name) && name.endsWith(`.${pointId}`),
    )

export const removeBitmap = (qmp: Qmp, node: string, name: string): Promise<unknown> =>
  qmp.execute('block-dirty-bitmap-remove', { node, name })
