// The decisions of a beginning point: may it be taken, what does the guard get to do,
// and what is told about the result.
import { BackupError, isReason } from '@blockferry/errors'
import type { BeginPoint, Point, PointDisk, Vm } from '../driver.ts'
import { bitmapActions, type ChosenBase, viewContext } from './bitmaps.ts'
import type { HoldJob, HoldResult } from './hold.ts'
import { parseTaggedName } from './names.ts'
import { exportNameOf, filterNameOf, type PointNames } from './point.ts'
import type { QemuVm } from './vm.ts'

/** A VM with everything in place for its point except the instant. */
export interface Prepared {
  qemu: QemuVm
  chosen: ChosenBase[]
}

/** Throws why no point can be taken of the VM. */
export function refuse(vm: Vm): void {
  if (!vm.refused) return
  const { reason, message } = vm.refused
  throw new BackupError(isReason(reason) ? reason : 'INTERNAL', message, { vm: vm.identity })
}

/** The VM is the lock: one point at a time, whoever took it. */
export function refuseBusy({ graph, vm }: QemuVm, ourTag: string): void {
  const names = [...graph.nodes.keys(), ...graph.exports.map(({ id }) => id)]
  const held = names.map(parseTaggedName).find((name) => name !== null)
  if (!held) return
  const owner = held.tag === ourTag ? `point ${held.pointId} of ours` : `installation ${held.tag}`
  throw new BackupError(
    'VM_BUSY',
    `take a point of VM ${vm.name}: ${owner} holds it; wait for the end of that backup`,
    { vm: vm.name, owner: held.tag, point: held.pointId },
  )
}

/** What the guard does while it holds the guest. */
export function jobOf(
  monitor: string,
  markPath: string,
  names: PointNames,
  { qemu, chosen }: Prepared,
  request: BeginPoint,
): HoldJob {
  const runs = qemu.vm.state === 'running'
  return {
    vmName: qemu.vm.name,
    monitor,
    qemu: qemu.process && { pid: qemu.process.pid, startTicks: qemu.process.startTicks },
    agentSocket: request.quiesce && runs ? qemu.agentSocket : null,
    pause: runs,
    drives: qemu.disks.map(({ qomPath }, index) => ({
      ...{ qomPath, node: filterNameOf(names, index) },
    })),
    actions: chosen.flatMap((one) => bitmapActions(one, request.repositoryId, request.pointId)),
    markPath,
  }
}

export function pointOf(
  { qemu, chosen }: Prepared,
  names: PointNames,
  socketPath: string,
  request: BeginPoint,
  held: HoldResult,
): Point {
  const disks: PointDisk[] = chosen.map(({ disk, base, decisions }, index) => ({
    id: disk.id,
    sizeBytes: disk.sizeBytes,
    address: { kind: 'nbd', uri: `nbd+unix:///${exportNameOf(names, index)}?socket=${socketPath}` },
    changedContext: base ? viewContext(request.pointId) : null,
    baseBackupId: base?.backupId ?? null,
    dataExtents: null,
    decisions,
  }))
  const quiesced = quiesceDecision(qemu, request, held)
  return {
    pointId: request.pointId,
    vm: qemu.vm,
    disks,
    consistency: quiesced.decision === 'QUIESCED' ? 'filesystem' : 'crash',
    ...{ timeMs: held.timeMs, frozenMs: held.frozenMs, pausedMs: held.pausedMs },
    decisions: [
      quiesced,
      ...(held.thawedLeftover ? [leftoverThawed(qemu.vm.name)] : []),
      ...disksGone(qemu, request),
      ...qemu.vm.uncovered.map(({ message }) => ({ decision: 'DISK_NOT_COVERED', message })),
    ],
  }
}

function quiesceDecision(qemu: QemuVm, request: BeginPoint, held: HoldResult) {
  const skipped = (why: string) => ({
    decision: 'QUIESCE_SKIPPED',
    message: `VM ${qemu.vm.name}: the file systems were not frozen: ${why}`,
  })
  if (!request.quiesce) return skipped('it was not asked for')
  if (qemu.vm.state !== 'running') return skipped('the VM is paused')
  if (qemu.agentSocket === null) return skipped('the VM has no port org.qemu.guest_agent.0')
  if (held.quiesceSkipped) return skipped(held.quiesceSkipped)
  return {
    decision: 'QUIESCED',
    message: `VM ${qemu.vm.name}: the file systems were frozen for ${Math.round(held.frozenMs)} ms`,
  }
}

const leftoverThawed = (name: string) => ({
  decision: 'LEFTOVER_REMOVED',
  message: `VM ${name}: its file systems had been left frozen by a program that is gone; they were thawed first`,
})

function disksGone(qemu: QemuVm, request: BeginPoint) {
  const here = new Set(qemu.disks.map(({ id }) => id))
  const before = request.bases[0]?.disks ?? []
  return before
    .filter(({ id }) => !here.has(id))
    .map(({ id }) => ({
      decision: 'DISK_GONE',
      message: `VM ${qemu.vm.name} no longer has disk ${id}, which the last backup holds`,
    }))
}
