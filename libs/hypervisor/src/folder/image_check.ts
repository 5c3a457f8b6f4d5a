// Whether an image can be read to its end: its tables are looked at before anything is read.
import { BackupError } from '@blockferry/errors'
import { checkTables, TableDamaged } from '../image/block_table.ts'
import type { ImageLayer } from '../image/image_layers.ts'
import type { QmpRefusal } from '../qmp.ts'
import { checkQcow2, isLogFailure, openFailure } from './image_open.ts'
import type { ImageDisk } from './image_vm.ts'

/** What QEMU refused to open: its tables often say more than QEMU does. */
export async function explainRefusal(
  disk: ImageDisk,
  refusal: QmpRefusal,
  signal: AbortSignal,
): Promise<BackupError> {
  const failure = openFailure(disk, refusal)
  if (failure.reason !== 'IMAGE_DAMAGED' || isLogFailure(refusal)) return failure
  try {
    for (const layer of disk.layers) await checkLayer(disk.id, layer, signal)
  } catch (thrown) {
    if (thrown instanceof BackupError && thrown.reason === 'IMAGE_DAMAGED') return thrown
  }
  return failure
}

/** Errors: IMAGE_DAMAGED, IMAGE_IN_USE. */
export async function checkLayer(
  id: string,
  layer: ImageLayer,
  signal: AbortSignal,
): Promise<void> {
  if (layer.format === 'qcow2') return await checkQcow2(id, layer, signal)
  try {
    await checkTables(layer, signal)
  } catch (thrown) {
    throw thrown instanceof TableDamaged ? tablesDamaged({ id, path: layer.path }, thrown) : thrown
  }
}

export const tablesDamaged = (disk: { id: string; path: string }, found: TableDamaged) =>
  new BackupError(
    'IMAGE_DAMAGED',
    `check disk ${disk.id}: image ${found.message}; restore it from a backup`,
    { path: disk.path, disk: disk.id, cause: found.message },
  )
