// One interface for every platform: what VMs there are, one point in time over
// all disks of a VM, and giving it back. A driver hands the data path the same
// thing whatever it drives: an address per disk and a changed-block source.

/** How a disk is reached: a libnbd URI with the contexts it exports, or a raw file read directly. */
export type DiskAddress = { kind: 'nbd'; uri: string } | { kind: 'raw'; path: string }

/** Power state as the driver sees it now. `paused`: the VM exists and was stopped by somebody. */
export type VmState = 'running' | 'paused' | 'off'

export interface VmDisk {
  /** Stable within the VM, never its position: qemu: the serial, else the device id; folder: the file name. */
  id: string
  /** Disk format on the host: raw, qcow2, … */
  format: string
  sizeBytes: number
  /** Path or URI of the image on the host, for reports. */
  location: string
}

/** A disk that was seen but will not be read. `reason` is a value of Reason or Decision. */
export interface UncoveredDisk {
  id: string
  location: string
  sizeBytes: number
  reason: string
  message: string
}

export interface Vm {
  /** Stable identity: qemu: QEMU's UUID; folder: the id in its YAML, else the folder's name. */
  identity: string
  name: string
  state: VmState
  disks: VmDisk[]
  uncovered: UncoveredDisk[]
  /** Why no backup can be taken now, or null. For example VM_WITHOUT_UUID, VM_UUID_DUPLICATE. */
  refused: { reason: string; message: string } | null
  /** Everything a restore needs to start the machine again; opaque outside the driver. */
  config: VmConfig
}

export interface VmConfig {
  driver: 'qemu' | 'folder'
  /** qemu: the program and its arguments; folder: empty. */
  commandLine: string[]
  /** Disk id to the text that names its image in commandLine (file name). */
  diskFiles: Record<string, string>
}

/** A committed backup that may serve as base: its manifest is in the repository. Newest first. */
export interface BaseCandidate {
  backupId: string
  pointId: string
  disks: { id: string; sizeBytes: number }[]
}

export interface BeginPoint {
  pointId: string
  vmIdentity: string
  repositoryId: string
  /** Usable bases, newest first; empty reads everything. Level full passes none. */
  bases: BaseCandidate[]
  /** Every point whose manifest is committed in this repository: bitmaps of other points are dropped. */
  committedPointIds: string[]
  /** Points whose bitmaps stay besides the new one: last and last full. */
  keptPointIds: string[]
  quiesce: boolean
}

export interface PointDisk {
  id: string
  sizeBytes: number
  address: DiskAddress
  /** NBD metadata context of changed blocks against the base, or null: read everything. */
  changedContext: string | null
  /** Backup the changed blocks count from, or null. */
  baseBackupId: string | null
  /** Flat pairs of offset and size: everything else reads as zeroes. Null: the address tells. */
  dataExtents: number[] | null
  /** Values of Decision that explain this disk, for example CHANGE_TRACKING_LOST, DISK_RESIZED. */
  decisions: { decision: string; message: string }[]
}

/** crash: like pulling the plug; filesystem: the guest's file systems were frozen; application: hooks ran, too; off: machine was off. */
export type Consistency = 'crash' | 'filesystem' | 'application' | 'off'

export interface Point {
  pointId: string
  vm: Vm
  disks: PointDisk[]
  consistency: Consistency
  /** Wall clock of the point, ms since the epoch. */
  timeMs: number
  /** From the freeze command to the thaw's answer; 0 when nothing was frozen. */
  frozenMs: number
  /** From QMP's STOP to its RESUME event; 0 when nothing was paused. */
  pausedMs: number
  decisions: { decision: string; message: string }[]
}

/** A point found on a platform, also one that an earlier process of ours left behind. */
export interface FoundPoint {
  pointId: string
  vmIdentity: string
  vmName: string
  /** False when it carries another installation's tag: never touched. */
  ours: boolean
  owner: string
}

export interface HypervisorDriver extends AsyncDisposable {
  readonly name: 'qemu' | 'folder'
  /** Errors: HOST_UNREACHABLE, HOST_DENIED. A VM that cannot be asked is listed with `refused`. */
  inventory(signal: AbortSignal): Promise<Vm[]>
  /** One point over all disks. On failure nothing of it remains and the VM runs. Errors: VM_NOT_FOUND, VM_BUSY, … */
  beginPoint(request: BeginPoint, signal: AbortSignal): Promise<Point>
  /** Resolves when the point still shows one instant; else rejects: IMAGE_CHANGED, POINT_BROKEN, POINT_LOST. */
  confirmPoint(pointId: string, signal: AbortSignal): Promise<void>
  /** Removes everything the point created. `committed` keeps its bitmaps, else they go. Idempotent. */
  releasePoint(
    pointId: string,
    outcome: 'committed' | 'dropped',
    signal: AbortSignal,
  ): Promise<void>
  /** Points that exist on the platform now, by the tags on what they created; the reaper's input. */
  findPoints(signal: AbortSignal): Promise<FoundPoint[]>
}
