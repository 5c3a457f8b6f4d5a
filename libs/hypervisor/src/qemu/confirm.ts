// Whether a point that is being read still shows one instant.
import { BackupError } from '@blockferry/errors'
import type { Qmp } from '../qmp.ts'
import type { Fleece } from './fleece.ts'
import { BlockGraph } from './graph.ts'
import { exportNameOf, filterNameOf, type PointNames } from './point.ts'
import { probeExport } from './probe.ts'
import { isRunning } from './process.ts'
import type { PointRecord } from './run_folder.ts'

const probeMsMax = 5_000

/** The QEMU that the point was taken from still runs. */
export async function confirmProcess(record: PointRecord): Promise<void> {
  if (!record.qemu || (await isRunning(record.qemu))) return
  const { name, identity } = record.point.vm
  const message = `VM ${name} ended while its point ${record.point.pointId} was read; the next run takes a new one`
  throw new BackupError('VM_POWERED_OFF', message, { vm: identity, point: record.point.pointId })
}

/** Every disk still has its filter, its export and its device. */
export async function confirmGraph(qmp: Qmp, tag: string, record: PointRecord): Promise<void> {
  const graph = await BlockGraph.read(qmp)
  const { pointId, disks, vm } = record.point
  const names = { tag, pointId }
  for (const [index, disk] of disks.entries()) {
    const metadata = { disk: disk.id, vm: vm.name, point: pointId }
    const filter = filterNameOf(names, index)
    const exported = graph.exports.some(({ id }) => id === exportNameOf(names, index))
    if (!graph.nodes.has(filter) || !exported) {
      const message = `disk ${disk.id} of VM ${vm.name}: point ${pointId} is no longer there; the next run takes a new one`
      throw new BackupError('POINT_LOST', message, metadata)
    }
    if (!graph.frontendOn(filter)) {
      const message = `disk ${disk.id} of VM ${vm.name} was unplugged while point ${pointId} was read; the next run leaves it out`
      throw new BackupError('DISK_REMOVED', message, metadata)
    }
  }
}

/** Every export can be read: no fleece store was full or silent. */
export async function confirmExports(
  socketPath: string,
  names: PointNames,
  record: PointRecord,
  fleece: Fleece,
): Promise<void> {
  const { pointId, vm } = record.point
  for (const [index, disk] of record.point.disks.entries()) {
    const fault = await probeExport(socketPath, exportNameOf(names, index), probeMsMax)
    if (fault === null) continue
    await confirmProcess(record)
    const room = await fleece.shownRoom()
    const message = `read disk ${disk.id} of VM ${vm.name} at point ${pointId}: ${fault}; its fleece store filled up or stopped answering${room}, give it more room`
    const metadata = { disk: disk.id, vm: vm.name, point: pointId, cause: fault }
    throw new BackupError('POINT_BROKEN', message, metadata)
  }
}
