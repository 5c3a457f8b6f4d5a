import { mkdir, rm } from 'node:fs/promises'
import { asBackupError, BackupError } from '@blockferry/errors'
import type { BeginPoint, FoundPoint, HypervisorDriver, Point, Vm } from '../driver.ts'
import { cutOffReaders } from '../nbd_export.ts'
import { type Qmp, QmpRefusal } from '../qmp.ts'
import { jobOf, type Prepared, pointOf, refuse, refuseBusy } from './begin.ts'
import { chooseBases, removeBitmap, staleBitmaps } from './bitmaps.ts'
import { confirmExports, confirmGraph, confirmProcess } from './confirm.ts'
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
  type PointNames,
  removeOldBitmaps,
  removePoint,
  removePointBitmaps,
  startServer,
} from './point.ts'
import { isRunning } from './process.ts'
import { Rows } from './rows.ts'
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

/** VMs that QEMU runs, reached by QMP. */
export class QemuDriver implements HypervisorDriver {
  readonly name = 'qemu'
  #tag: string
  #monitors: Monitors
  // A release that comes while its point still begins waits for it.
  #points = new Rows()
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

  beginPoint(request: BeginPoint, signal: AbortSignal): Promise<Point> {
    return this.#points.alone(request.pointId, () => this.#beginOrResume(request, signal))
  }

  async #beginOrResume(request: BeginPoint, signal: AbortSignal): Promise<Point> {
    const again = await this.#run.readRecord(request.pointId)
    if (again) {
      await this.confirmPoint(request.pointId, signal)
      return again.point
    }
    await this.#run.create()
    if (this.#fleece.folder) await mkdir(this.#fleece.folder, { recursive: true, mode: 0o700 })
    await this.#fleece.checkRoom()
    // An attempt that a crash ended before it could return: nobody read it, nothing depends on it.
    if ((await this.#run.pointIds(this.#fleece.folder)).has(request.pointId)) {
      await this.#releaseFound(request.pointId, 'dropped', signal)
    }
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
      const names = this.#names(request.pointId)
      const markPath = this.#run.markPath(request.pointId)
      const job = jobOf(found.monitor, markPath, names, prepared, request)
      const held = await this.#hold(guard, job)
      signal.throwIfAborted()
      await withMonitor(found.monitor, signal, (qmp) => addExports(qmp, names, prepared.chosen))
      const socket = this.#run.socketPath(request.pointId)
      const point = pointOf(prepared, names, socket, request, held)
      await this.#run.writeRecord({
        ...{ point, monitor: found.monitor, repositoryId: request.repositoryId },
        ...{ qemu: job.qemu, keptPointIds: request.keptPointIds },
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
    await addFilters(qmp, this.#names(request.pointId), qemu.disks, this.#fleece)
    return { qemu, chosen }
  }

  async #startServer(qmp: Qmp, qemu: QemuVm, pointId: string): Promise<void> {
    const path = this.#run.socketPath(pointId)
    try {
      await startServer(qmp, path)
    } catch (thrown) {
      if (!(thrown instanceof QmpRefusal)) throw thrown
      const pid = qemu.process?.pid ?? 0
      // No point of ours is here, so a server on a socket of ours is left from a crash. It is not
      // stopped when somebody else exports through it: QEMU waits for the readers in its main loop.
      const isOurs = (await socketsServedBy(pid, this.#run.path)).length > 0
      if (!isOurs || qemu.graph.exports.length > 0) {
        const message = `take a point of VM ${qemu.vm.name}: ${thrown.description}; another program serves its disks, stop that first`
        throw new BackupError('VM_BUSY', message, { vm: qemu.vm.name, owner: 'another NBD server' })
      }
      await qmp.execute('nbd-server-stop')
      await startServer(qmp, path)
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

  async confirmPoint(pointId: string, signal: AbortSignal): Promise<void> {
    const record = await this.#run.readRecord(pointId)
    if (!record) {
      const message = `confirm point ${pointId}: it was released or never taken`
      throw new BackupError('POINT_NOT_FOUND', message, { point: pointId })
    }
    await confirmProcess(record)
    await this.#monitors.alone(record.monitor, async () => {
      try {
        await withMonitor(record.monitor, signal, (qmp) => confirmGraph(qmp, this.#tag, record))
      } catch (thrown) {
        // QEMU may have ended while it was asked.
        if (asBackupError(thrown)?.reason === 'HOST_UNREACHABLE') await confirmProcess(record)
        throw thrown
      }
    })
    const socket = this.#run.socketPath(pointId)
    await confirmExports(socket, this.#names(pointId), record, this.#fleece)
  }

  releasePoint(
    pointId: string,
    outcome: 'committed' | 'dropped',
    signal: AbortSignal,
  ): Promise<void> {
    return this.#points.alone(pointId, () => this.#releaseFound(pointId, outcome, signal))
  }

  async #releaseFound(
    pointId: string,
    outcome: 'committed' | 'dropped',
    signal: AbortSignal,
  ): Promise<void> {
    const record = await this.#run.readRecord(pointId)
    await this.#undoLeftHold(pointId)
    const paths = record ? [record.monitor] : await this.#monitors.list()
    const faults: unknown[] = []
    for (const path of paths) {
      const releasing = this.#monitors.alone(path, async () => {
        if (record?.qemu && !(await isRunning(record.qemu))) return
        const release = () =>
          withMonitor(path, signal, (qmp) => this.#release(qmp, pointId, outcome, record))
        await ignoreAbsent(() => this.#againWithoutReaders(pointId, release))
        // Who lists the points now must not be told of one that is gone.
        this.#host.forget(path)
      })
      // Without a record the point may be anywhere: a monitor that hangs must not keep it there.
      await releasing.catch((thrown) => faults.push(thrown))
    }
    // The files stay as a reminder to ask again.
    if (faults.length > 0) throw faults[0]
    await this.#removeFiles(pointId)
  }

  /**
   * A reader that hangs can hang QEMU as a whole, with its guest and its monitor: as soon as
   * something there waits for the requests under way, a reset of the guest, say.
   */
  async #againWithoutReaders(pointId: string, release: () => Promise<void>): Promise<void> {
    try {
      await release()
    } catch (thrown) {
      const cause = asBackupError(thrown)?.metadata.cause
      if (cause !== 'no answer' && cause !== 'no greeting') throw thrown
      const held = await cutOffReaders(this.#run.socketPath(pointId))
      if (held) throw held
      await release()
    }
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
    await removePoint(qmp, this.#names(pointId), this.#run.socketPath(pointId))
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
    if (!mark || (await isRunning(mark.guard))) return
    // A VM that was started anew since then is not held by us.
    const { qemu } = mark.job
    if (qemu && !(await isRunning(qemu))) await rm(mark.job.markPath, { force: true })
    else await undo(mark.job)
  }

  /**
   * A guest that is held by nobody any more goes on at once, long before its point is due to be
   * removed. What fails here is tried again by the next look and by the release.
   */
  async #letGoOn(pointId: string): Promise<void> {
    // Who works on the point in this process undoes its hold, too.
    if (this.#points.isHeld(pointId)) return
    await this.#points.alone(pointId, () => this.#undoLeftHold(pointId)).catch(() => {})
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
      await this.#letGoOn(pointId)
      if (found.has(pointId)) continue
      const vm = (await this.#run.readRecord(pointId))?.point.vm
      const point = { vmIdentity: vm?.identity ?? '', vmName: vm?.name ?? '' }
      found.set(pointId, { pointId, ours: true, owner: this.#tag, ...point })
    }
    return [...found.values()]
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #names(pointId: string): PointNames {
    return { tag: this.#tag, pointId }
  }

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
        const { signal } = new AbortController()
        if (open) await remove(open)
        else await ignoreAbsent(() => withMonitor(monitor, signal, remove))
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
