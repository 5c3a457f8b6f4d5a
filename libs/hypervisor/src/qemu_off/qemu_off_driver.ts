// A QEMU machine that is off, by the description that was remembered while it ran. Its
// images are opened writable by a storage daemon, so that the same bitmaps serve live and off:
// one transaction adds the point's bitmap and a view of the base's, and only the view is shown.
//
// While a point exists, QEMU's own locks keep the machine from starting; MACHINE_OFF says so.
// When the daemon is killed its bitmaps are lost, and the next run reads everything.
import { isAbsolute } from 'node:path'
import { BackupError } from '@blockferry/errors'
import type {
  BeginPoint,
  FoundPoint,
  HypervisorDriver,
  Point,
  PointDisk,
  UncoveredDisk,
  Vm,
} from '../driver.ts'
import { explainRefusal } from '../folder/image_check.ts'
import {
  assertFoundAgain,
  assertReadable,
  assertSizes,
  checkImages,
  offPoint,
  rememberStates,
  sizeDiffers,
} from '../folder/image_points.ts'
import { assertNoWriter } from '../folder/image_state.ts'
import { findImage, type ImageFinding, type ImageVm, imageVm, toVm } from '../folder/image_vm.ts'
import type { PointFile } from '../folder/point_file.ts'
import { type Outcome, PointKeeper, type PointKeeperOptions } from '../folder/point_keeper.ts'
import { readDataExtents } from '../image/data_extents.ts'
import {
  type BitmapDisk,
  bitmapActions,
  bitmapsBesides,
  bitmapsOf,
  bitmapsOfPoint,
  type ChosenBase,
  chooseBases,
  readBitmaps,
  removeBitmap,
  staleBitmaps,
  viewContext,
  viewName,
} from '../qemu/bitmaps.ts'
import { type Qmp, QmpRefusal } from '../qmp.ts'
import type { StorageDaemon } from '../storage_daemon.ts'

export interface QemuOffDriverOptions extends PointKeeperOptions {
  /** VMs of the host as they were when they ran last; only those that do not run now. */
  known: () => Vm[]
}

export class QemuOffDriver implements HypervisorDriver {
  readonly name = 'qemu'
  #known: () => Vm[]
  #keeper: PointKeeper

  constructor(options: QemuOffDriverOptions) {
    this.#known = options.known
    this.#keeper = new PointKeeper(options, {
      beforeClose: (file, daemon, outcome) => this.#tidy(file, daemon, outcome),
      afterClose: async () => {},
    })
  }

  async inventory(signal: AbortSignal): Promise<Vm[]> {
    const vms: Vm[] = []
    for (const known of this.#known()) {
      signal.throwIfAborted()
      vms.push(asOff(known, await findImages(known)))
    }
    return vms
  }

  async beginPoint(request: BeginPoint, signal: AbortSignal): Promise<Point> {
    const known = this.#known().find((vm) => vm.identity === request.vmIdentity)
    if (!known) throw vmNotFound(request.vmIdentity)
    const vm = await findImages(known)
    assertReadable(vm)
    const { pointId, repositoryId, keptPointIds } = request
    const about = {
      pointId,
      vmIdentity: vm.identity,
      vmName: vm.name,
      start: null,
      bitmaps: { repositoryId, keptPointIds },
    }
    return await this.#keeper.begin(about, async (file) => {
      // Before anything of ours opens the files for writing, too.
      const states = await rememberStates(vm, signal)
      await assertNoWriter(states)
      await checkImages(vm, signal)
      const daemon = await this.#keeper.startDaemon(file, signal)
      await openImages(daemon, vm, signal)
      await assertFoundAgain(vm, states)
      const disks = await takePoint(daemon, vm, request, signal)
      file.states = await rememberStates(vm, signal)
      assertSizes(vm, file.states)
      const point = offPoint(request, vm, disks)
      return { ...point, vm: asOff(known, vm) }
    })
  }

  async confirmPoint(pointId: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    await this.#keeper.confirm(pointId)
  }

  async releasePoint(pointId: string, outcome: Outcome): Promise<void> {
    await this.#keeper.release(pointId, outcome)
  }

  async findPoints(_signal: AbortSignal): Promise<FoundPoint[]> {
    return await this.#keeper.findPoints()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#keeper[Symbol.asyncDispose]()
  }

  /**
   * Bitmaps of a committed point stay with those of the kept ones, a dropped one's go. When the
   * daemon is gone nothing is done: the next point drops what no committed backup names.
   */
  async #tidy(file: PointFile, daemon: StorageDaemon | null, outcome: Outcome): Promise<void> {
    if (!daemon || !file.bitmaps) return
    const { repositoryId, keptPointIds } = file.bitmaps
    const kept = [...keptPointIds, file.pointId]
    // A bitmap that an export shows cannot be removed.
    await daemon.removeExports()
    for (const [node, bitmaps] of await readBitmaps(daemon.qmp)) {
      const view = bitmaps.filter(({ name }) => name === viewName(file.pointId))
      const others =
        outcome === 'committed'
          ? bitmapsBesides(bitmaps, repositoryId, kept)
          : bitmapsOfPoint(bitmaps, file.pointId)
      for (const name of [...view.map((one) => one.name), ...others]) {
        await removeBitmap(daemon.qmp, node, name)
      }
    }
  }
}

/** The images of a known VM as they are now; any that cannot be read refuses the VM. */
async function findImages(known: Vm): Promise<ImageVm> {
  const findings: ImageFinding[] = []
  for (const { id, location, format } of known.disks) {
    if (!isAbsolute(location)) findings.push(notLocal(id, location))
    else findings.push(asRefusal(await findImage({ path: location, id, format }, null)))
  }
  const { identity, name } = known
  return imageVm({ identity, name, stop: null, start: null }, findings)
}

/** A disk that was covered while the machine ran must not fall out in silence when it is off. */
function asRefusal(finding: ImageFinding): ImageFinding {
  if (finding.kind !== 'uncovered') return finding
  const { reason, message } = finding.uncovered
  return { kind: 'refused', reason, message }
}

const notLocal = (id: string, location: string): ImageFinding => ({
  kind: 'refused',
  reason: 'DISK_FORMAT_UNSUPPORTED',
  message: `disk ${id}: ${location} is no absolute path of a file; start the machine and back it up while it runs`,
})

function asOff(known: Vm, images: ImageVm): Vm {
  const uncovered: UncoveredDisk[] = [...known.uncovered, ...images.uncovered]
  return { ...toVm(images), uncovered, config: known.config }
}

/** REQUIRES: the images are open. */
async function takePoint(
  daemon: StorageDaemon,
  vm: ImageVm,
  request: BeginPoint,
  signal: AbortSignal,
): Promise<PointDisk[]> {
  const { pointId, repositoryId, bases, committedPointIds } = request
  const before = await readBitmapDisks(daemon.qmp, vm)
  for (const disk of before) {
    for (const name of staleBitmaps(disk, repositoryId, committedPointIds)) {
      await removeBitmap(daemon.qmp, disk.node, name)
    }
  }
  const chosen = chooseBases(before, bases, repositoryId)
  const actions = chosen.flatMap((one) => bitmapActions(one, repositoryId, pointId))
  if (actions.length > 0) await daemon.qmp.execute('transaction', { actions })
  const disks: PointDisk[] = []
  for (const one of chosen) disks.push(await showDisk(daemon, vm, one, pointId, signal))
  return disks
}

async function openImages(daemon: StorageDaemon, vm: ImageVm, signal: AbortSignal): Promise<void> {
  for (const [index, disk] of vm.disks.entries()) {
    signal.throwIfAborted()
    const nodeName = nodeOf(index)
    const { path, format, layers } = disk
    try {
      if (format === 'raw') {
        await daemon.lockFile(nodeName, path, layers[0]?.isDevice === true)
        continue
      }
      // Only qcow2 keeps bitmaps; opened for writing, a VHDX would replay its log.
      const seen = await daemon.openImage({ nodeName, layers, writable: format === 'qcow2' })
      if (seen !== disk.sizeBytes) throw sizeDiffers(disk, seen)
    } catch (thrown) {
      throw thrown instanceof QmpRefusal ? await explainRefusal(disk, thrown, signal) : thrown
    }
  }
}

async function showDisk(
  daemon: StorageDaemon,
  vm: ImageVm,
  { disk, base, decisions }: ChosenBase,
  pointId: string,
  signal: AbortSignal,
): Promise<PointDisk> {
  const image = vm.disks.find(({ id }) => id === disk.id)
  const { id, sizeBytes, node } = disk
  const common = {
    ...{ id, sizeBytes, decisions },
    changedContext: base ? viewContext(pointId) : null,
    baseBackupId: base?.backupId ?? null,
    dataExtents: null,
  }
  if (image?.format === 'raw') return { ...common, address: { kind: 'raw', path: image.path } }
  const bitmaps = base ? [{ node, name: viewName(pointId) }] : []
  const uri = await daemon.exportNbd(node, node, bitmaps).catch(async (thrown: unknown) => {
    throw image && thrown instanceof QmpRefusal
      ? await explainRefusal(image, thrown, signal)
      : thrown
  })
  const dataExtents = await readDataExtents(image?.layers ?? [], signal)
  return { ...common, dataExtents, address: { kind: 'nbd', uri } }
}

interface NodeAnswer {
  'node-name': string
  image: { 'format-specific'?: { data?: { compat?: string } } }
}

async function readBitmapDisks(qmp: Qmp, vm: ImageVm): Promise<BitmapDisk[]> {
  const nodes =
    await qmp.execute<(NodeAnswer & Parameters<typeof bitmapsOf>[0])[]>('query-named-block-nodes')
  return vm.disks.map(({ id, sizeBytes, format }, index) => {
    const node = nodes.find((one) => one['node-name'] === nodeOf(index))
    // Version 2 of qcow2, compat 0.10, has no room for bitmaps.
    const compat = node?.image['format-specific']?.data?.compat
    return {
      ...{ id, sizeBytes, node: nodeOf(index) },
      storesBitmaps: format === 'qcow2' && compat === '1.1',
      bitmaps: node ? bitmapsOf(node) : [],
    }
  })
}

const nodeOf = (index: number) => `d${index}`

const vmNotFound = (identity: string) =>
  new BackupError(
    'VM_NOT_FOUND',
    `find VM ${JSON.stringify(identity)}: it does not run and was never seen running; start it once, or add its images as a folder host`,
    { vm: identity },
  )
