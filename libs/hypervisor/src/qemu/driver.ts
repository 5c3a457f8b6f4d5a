import { mkdir } from 'node:fs/promises'
import { asBackupError, BackupError, isReason } from '@blockferry/errors'
import type { BeginPoint, FoundPoint, HypervisorDriver, Point, PointDisk, Vm } from '../driver.ts'
import { type Qmp, QmpRefusal } from '../qmp.ts'
import {
  bitmapActions,
  type ChosenBase,
  chooseBases,
  removeBitmap,
  staleBitmaps,
  viewContext,
} from './bitmaps.ts'
import { Fleece, type FleecePlace } from './fleece.ts'
import { BlockGraph } from './graph.ts'
import { Guard, type OnHoldStep, undo } from './guard.ts'
import type { HoldJob, HoldResult } from './hold.ts'
import { type HostVm, QemuHost } from './host.ts'
import { type MonitorPlace, Monitors, withMonitor } from './monitors.ts'
import { parseTaggedName } from './names.ts'
import {
  addExports,
  addFilters,
  exportNameOf,
  filterNameOf,
  removeOldBitmaps,
  removePoint,
  removePointBitmaps,
  startServer,
} from './point.ts'
import { probeExport } from './probe.ts'
import { startTicksOf } from './process.ts'
import { type PointRecord, RunFolder } from './run_folder.ts'
import { isListened, socketsServedBy } from './server.ts'
import { type QemuVm, readVm } from './vm.ts'

export interface QemuDriverOptions {
  /** Six hex digits that tell this installation's points from others'. */
  tag: string
  monitors: MonitorPlace
  /** For NBD sockets and records; short, for a socket's path has 107 bytes at most. */
  runFolder: string
  fleece: FleecePlace
  /** Told each step of the guard and its process id. */
  onHoldStep?: OnHoldStep
}

const probeMsMax = 5_000

/** VMs that QEMU runs, reached by QMP. */
export class QemuDriver implements HypervisorDriver {
  readonly name = 'qemu'
  #tag: string
  #monitors: Monitors
  #host: QemuHost
  #run: RunFolder
  #fleece: Fleece
  #onHoldStep: OnHoldStep

  constructor(options: QemuDriverOptions) {
    this.#tag = options.tag
    this.#monitors = new Monitors(options.monitors)
    this.#host = new QemuHost(this.#monitors)
    this.#run = new RunFolder(options.runFolder, options.tag)
    this.#fleece = new Fleece(options.fleece)
    this.#onHoldStep = options.onHoldStep ?? (() => {})
  }

  async inventory(signal: AbortSignal): Promise<Vm[]> {
    return (await this.#host.list(signal)).map(({ vm }) => vm)
  }

  async beginPoint(request: BeginPoint, signal: AbortSignal): Promise<Point> {
    const again = await this.#run.readRecord(request.pointId)
    if (again) {
      await this.confirmPoint(request.pointId, signal)
      return again.point
    }
    await this.#run.create()
    if (this.#fleece.folder) await mkdir(this.#fleece.folder, { recursive: true, mode: 0o700 })
    await this.#fleece.checkRoom()
    const found = await this.#host.find(request.vmIdentity, signal)
    refuse(found.vm)
    return await this.#monitors.alone(found.monitor, () => this.#begin(found, request, signal))
  }

  async #begin(found: HostVm, request: BeginPoint, signal: AbortSignal): Promise<Point> {
    // Started first, because it takes the longest; it waits for its task.
    using guard = new Guard()
    const prepared = await withMonitor(found.monitor, signal, async (qmp) => {
      const qemu = await readVm(qmp, found.monitor, found.qemu?.process ?? null)
      refuse(qemu.vm)
      refuseBusy(qemu, this.#tag)
      return await this.#orRemove(found.monitor, request.pointId, qmp, () =>
        this.#prepare(qmp, qemu, request),
      )
    })
    return await this.#orRemove(found.monitor, request.pointId, null, async () => {
      const job = this.#jobOf(found.monitor, prepared, request)
      const held = await this.#hold(guard, job)
      signal.throwIfAborted()
      const names = { tag: this.#tag, pointId: request.pointId }
      await withMonitor(found.monitor, signal, (qmp) => addExports(qmp, names, prepared.chosen))
      const point = this.#pointOf(prepared, request, held)
      const { process } = prepared.qemu
      await this.#run.writeRecord({
        ...{ point, monitor: found.monitor, repositoryId: request.repositoryId },
        ...{ pid: process?.pid ?? null, startTicks: process?.startTicks ?? null },
        keptPointIds: request.keptPointIds,
      })
      return point
    })
  }

  /** Everything that takes time, before the guest is held. */
  async #prepare(qmp: Qmp, qemu: QemuVm, request: BeginPoint): Promise<Prepared> {
    const disks = qemu.disks.map(({ bitmaps }) => bitmaps)
    for (const disk of disks) {
      const stale = staleBitmaps(disk, request.repositoryId, request.committedPointIds)
      for (const name of stale) await removeBitmap(qmp, disk.node, name)
      disk.bitmaps = disk.bitmaps.filter(({ name }) => !stale.includes(name))
    }
    const chosen = chooseBases(disks, request.bases, request.repositoryId)
    await this.#startServer(qmp, qemu, request.pointId)
    const names = { tag: this.#tag, pointId: request.pointId }
    await addFilters(qmp, names, qemu.disks, this.#fleece)
    return { qemu, chosen }
  }

  async #startServer(qmp: Qmp, qemu: QemuVm, pointId: string): Promise<void> {
    const path = this.#run.socketPath(pointId)
    try {
      await startServer(qmp, path)
    } catch (thrown) {
      if (!(thrown instanceof QmpRefusal)) throw thrown
      const pid = qemu.process?.pid ?? 0
      // No point of ours is here, so a server on a socket of ours is left from a crash.
      if ((await socketsServedBy(pid, this.#run.path)).length === 0) {
        const message = `take a point of VM ${qemu.vm.name}: ${thrown.description}; another program serves its disks, stop that first`
        throw new BackupError('VM_BUSY', message, { vm: qemu.vm.name, owner: 'another NBD server' })
      }
      await qmp.execute('nbd-server-stop')
      await startServer(qmp, path)
    }
  }

  #jobOf(monitor: string, { qemu, chosen }: Prepared, request: BeginPoint): HoldJob {
    const names = { tag: this.#tag, pointId: request.pointId }
    const runs = qemu.vm.state === 'running'
    return {
      vmName: qemu.vm.name,
      monitor,
      agentSocket: request.quiesce && runs ? qemu.agentSocket : null,
      pause: runs,
      drives: qemu.disks.map(({ qomPath }, index) => ({
        ...{ qomPath, node: filterNameOf(names, index) },
      })),
      actions: chosen.flatMap((one) => bitmapActions(one, request.repositoryId, request.pointId)),
      markPath: this.#run.markPath(request.pointId),
    }
  }

  async #hold(guard: Guard, job: HoldJob): Promise<HoldResult> {
    try {
      return await guard.run('hold', job, this.#onHoldStep)
    } catch (thrown) {
      const failure = asBackupError(thrown)
      if (failure?.reason !== 'GUARD_FAILED') throw thrown
      await guard.end()
      await undo(job).catch((late) => {
        const message = `${failure.message}; letting VM ${job.vmName} go on failed: ${late.message}; it is tried again when the point is released`
        throw new BackupError('GUARD_FAILED', message, failure.metadata, { cause: late })
      })
      throw thrown
    }
  }

  #pointOf({ qemu, chosen }: Prepared, request: BeginPoint, held: HoldResult): Point {
    const names = { tag: this.#tag, pointId: request.pointId }
    const socket = this.#run.socketPath(request.pointId)
    const disks: PointDisk[] = chosen.map(({ disk, base, decisions }, index) => ({
      id: disk.id,
      sizeBytes: disk.sizeBytes,
      address: { kind: 'nbd', uri: `nbd+unix:///${exportNameOf(names, index)}?socket=${socket}` },
      changedContext: base ? viewContext(request.pointId) : null,
      baseBackupId: base?.backupId ?? null,
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

  async confirmPoint(pointId: string, signal: AbortSignal): Promise<void> {
    const record = await this.#run.readRecord(pointId)
    if (!record) {
      const message = `confirm point ${pointId}: it was released or never taken`
      throw new BackupError('POINT_NOT_FOUND', message, { point: pointId })
    }
    await this.#confirmProcess(record)
    await this.#monitors.alone(record.monitor, async () => {
      try {
        await withMonitor(record.monitor, signal, (qmp) => this.#confirmGraph(qmp, record))
      } catch (thrown) {
        // QEMU may have ended while it was asked.
        if (asBackupError(thrown)?.reason === 'HOST_UNREACHABLE') await this.#confirmProcess(record)
        throw thrown
      }
    })
    const socket = this.#run.socketPath(pointId)
    const names = { tag: this.#tag, pointId }
    for (const [index, disk] of record.point.disks.entries()) {
      const fault = await probeExport(socket, exportNameOf(names, index), probeMsMax)
      if (fault === null) continue
      await this.#confirmProcess(record)
      const room = await this.#fleece.shownRoom()
      const message = `read disk ${disk.id} of VM ${record.point.vm.name} at point ${pointId}: ${fault}; its fleece store filled up or stopped answering${room}, give it more room`
      const metadata = { disk: disk.id, vm: record.point.vm.name, point: pointId, cause: fault }
      throw new BackupError('POINT_BROKEN', message, metadata)
    }
  }

  async #confirmProcess(record: PointRecord): Promise<void> {
    if (record.pid === null) return
    const startTicks = await startTicksOf(record.pid)
    if (startTicks === record.startTicks) return
    const { name, identity } = record.point.vm
    const message = `VM ${name} ended while its point ${record.point.pointId} was read; the next run takes a new one`
    throw new BackupError('VM_POWERED_OFF', message, { vm: identity, point: record.point.pointId })
  }

  async #confirmGraph(qmp: Qmp, record: PointRecord): Promise<void> {
    const graph = await BlockGraph.read(qmp)
    const { pointId, disks, vm } = record.point
    const names = { tag: this.#tag, pointId }
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

  async releasePoint(
    pointId: string,
    outcome: 'committed' | 'dropped',
    signal: AbortSignal,
  ): Promise<void> {
    const record = await this.#run.readRecord(pointId)
    await this.#undoLeftHold(pointId)
    const paths = record ? [record.monitor] : await this.#monitors.list()
    for (const path of paths) {
      await this.#monitors.alone(path, async () => {
        const gone = record?.pid != null && (await startTicksOf(record.pid)) !== record.startTicks
        if (gone) return
        await ignoreAbsent(() =>
          withMonitor(path, signal, (qmp) => this.#release(qmp, pointId, outcome, record)),
        )
      })
    }
    await this.#removeFiles(pointId)
  }

  async #release(
    qmp: Qmp,
    pointId: string,
    outcome: 'committed' | 'dropped',
    record: PointRecord | null,
  ): Promise<void> {
    await this.#removeFromQemu(qmp, pointId)
    if (outcome === 'dropped') await removePointBitmaps(qmp, pointId)
    else if (record) {
      await removeOldBitmaps(qmp, record.repositoryId, [...record.keptPointIds, pointId])
    }
  }

  async #removeFromQemu(qmp: Qmp, pointId: string): Promise<void> {
    await removePoint(qmp, { tag: this.#tag, pointId })
    const graph = await BlockGraph.read(qmp)
    if (graph.exports.length > 0) return
    // Without a listener the server was never started, or is not ours to stop.
    if (!(await isListened(this.#run.socketPath(pointId)))) return
    await qmp.execute('nbd-server-stop').catch((thrown) => {
      if (!(thrown instanceof QmpRefusal)) throw thrown
    })
  }

  async #removeFiles(pointId: string): Promise<void> {
    const { folder } = this.#fleece
    if (folder) {
      const names = await this.#run.filesOf(folder, pointId)
      for (const name of names.filter((one) => /\.f\d+$/.test(one))) await this.#fleece.remove(name)
    }
    await this.#run.remove(pointId)
  }

  /** Lets a guest go on that a crash of the guard and its starter left frozen or paused. */
  async #undoLeftHold(pointId: string): Promise<void> {
    const mark = await this.#run.readMark(pointId)
    if (!mark || (await startTicksOf(mark.guardPid)) === mark.guardStartTicks) return
    await undo(mark.job)
  }

  async findPoints(signal: AbortSignal): Promise<FoundPoint[]> {
    const found = new Map<string, FoundPoint>()
    for (const { vm, qemu } of await this.#host.list(signal)) {
      const names = [
        ...(qemu?.graph.nodes.keys() ?? []),
        ...(qemu?.graph.exports.map(({ id }) => id) ?? []),
      ]
      for (const parsed of names.map(parseTaggedName)) {
        if (!parsed) continue
        const { tag, pointId } = parsed
        const ours = tag === this.#tag
        const point = { pointId, ours, owner: tag, vmIdentity: vm.identity, vmName: vm.name }
        found.set(pointId, point)
      }
    }
    for (const pointId of await this.#run.pointIds(this.#fleece.folder)) {
      if (found.has(pointId)) continue
      const vm = (await this.#run.readRecord(pointId))?.point.vm
      const point = { vmIdentity: vm?.identity ?? '', vmName: vm?.name ?? '' }
      found.set(pointId, { pointId, ours: true, owner: this.#tag, ...point })
    }
    return [...found.values()]
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  /** When `work` fails, nothing of the point remains; the first failure is the one that counts. */
  async #orRemove<T>(
    monitor: string,
    pointId: string,
    open: Qmp | null,
    work: () => Promise<T>,
  ): Promise<T> {
    try {
      return await work()
    } catch (thrown) {
      const remove = async (qmp: Qmp) => {
        await this.#removeFromQemu(qmp, pointId)
        await removePointBitmaps(qmp, pointId)
      }
      try {
        if (open) await remove(open)
        else await withMonitor(monitor, new AbortController().signal, remove)
        await this.#removeFiles(pointId)
      } catch {
        // The reaper finds by their names what could not be removed now.
      }
      throw thrown
    }
  }
}

/** A socket that nobody listens on has nothing of ours behind it. */
async function ignoreAbsent(work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (thrown) {
    const cause = asBackupError(thrown)?.metadata.cause
    if (cause !== 'ECONNREFUSED' && cause !== 'ENOENT') throw thrown
  }
}

interface Prepared {
  qemu: QemuVm
  chosen: ChosenBase[]
}

function refuse(vm: Vm): void {
  if (!vm.refused) return
  const { reason, message } = vm.refused
  throw new BackupError(isReason(reason) ? reason : 'INTERNAL', message, { vm: vm.identity })
}

/** The VM is the lock: one point at a time, whoever took it. */
function refuseBusy({ graph, vm }: QemuVm, ourTag: string): void {
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
