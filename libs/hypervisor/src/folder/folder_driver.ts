// A folder of images as a host: every VM in it is off or is stopped by its hook while
// it is read. See vm_file.ts for the YAML and image_points.ts for what a point is.
//
// Internal snapshots of a qcow2 are left alone; the active layer is read. Change tracking
// does not exist here: everything allocated is read, and only what differs is stored.
import { BackupError } from '@blockferry/errors'
import type { BeginPoint, FoundPoint, HypervisorDriver, Point, Vm } from '../driver.ts'
import { listImageVms } from './folder_inventory.ts'
import { ImagePoints } from './image_points.ts'
import { imageVmOfPaths, toVm } from './image_vm.ts'
import type { Outcome, PointKeeperOptions } from './point_keeper.ts'

export interface FolderDriverOptions extends PointKeeperOptions {
  /** Folder of the images; null: only images that a caller names. */
  folder: string | null
}

export class FolderDriver implements HypervisorDriver {
  readonly name = 'folder'
  #folder: string | null
  #points: ImagePoints

  constructor(options: FolderDriverOptions) {
    this.#folder = options.folder
    this.#points = new ImagePoints(options)
  }

  async inventory(signal: AbortSignal): Promise<Vm[]> {
    if (this.#folder === null) return []
    return (await listImageVms(this.#folder, signal)).map(toVm)
  }

  async beginPoint(request: BeginPoint, signal: AbortSignal): Promise<Point> {
    return await this.#points.begin(request, () => this.#find(request.vmIdentity, signal), signal)
  }

  /** A point over images that the caller names, as one machine that is off. */
  async beginPointOfImages(
    request: BeginPoint,
    paths: string[],
    signal: AbortSignal,
  ): Promise<Point> {
    const find = () => imageVmOfPaths(request.vmIdentity, paths)
    return await this.#points.begin(request, find, signal)
  }

  async confirmPoint(pointId: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    await this.#points.keeper.confirm(pointId)
  }

  async releasePoint(pointId: string, outcome: Outcome): Promise<void> {
    await this.#points.keeper.release(pointId, outcome)
  }

  async findPoints(_signal: AbortSignal): Promise<FoundPoint[]> {
    return await this.#points.keeper.findPoints()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#points.keeper[Symbol.asyncDispose]()
  }

  async #find(identity: string, signal: AbortSignal) {
    const vms = this.#folder === null ? [] : await listImageVms(this.#folder, signal)
    const vm = vms.find((one) => one.identity === identity)
    if (vm) return vm
    throw new BackupError(
      'VM_NOT_FOUND',
      `find VM ${JSON.stringify(identity)} in folder ${this.#folder}: no such sub-folder or YAML file; list the VMs to see their names`,
      { vm: identity, folder: this.#folder ?? '' },
    )
  }
}
