// A VM made of image files, before any point: which images, how they would be read,
// and what speaks against it. Made from a folder's inventory or from paths that a user names.
import { basename, dirname, resolve } from 'node:path'
import { BackupError } from '@blockferry/errors'
import { diskIdRule, isDiskId } from '../disk_id.ts'
import type { UncoveredDisk, Vm, VmDisk } from '../driver.ts'
import type { ImageFormat, ImageProbe } from '../image/image_format.ts'
import { filesOf, findLayers, type ImageLayer, type LayerProblem } from '../image/image_layers.ts'
import { probeImage, probePlain } from '../image/image_probe.ts'
import { restoreIncomplete } from '../restore_mark.ts'
import type { Hook } from './vm_file.ts'

export interface ImageDisk {
  id: string
  path: string
  format: ImageFormat
  /** What the user says it is, or null. */
  statedFormat: string | null
  sizeBytes: number
  /** The image itself, then what lies below a qcow2 overlay, nearest first. */
  layers: ImageLayer[]
}

export interface ImageVm {
  identity: string
  name: string
  disks: ImageDisk[]
  uncovered: UncoveredDisk[]
  refused: Vm['refused']
  stop: Hook | null
  start: Hook | null
}

/** One image that shall be a disk. */
export interface ImageWanted {
  path: string
  id: string
  /** What the user says it is, or null. */
  format: string | null
}

/**
 * An image as a disk, as an uncovered disk, or as the reason why the VM is refused. A disk that is
 * half restored refuses the VM, too, but can be restored over.
 */
export type ImageFinding =
  | { kind: 'disk'; disk: ImageDisk; refused: Vm['refused'] }
  | { kind: 'uncovered'; uncovered: UncoveredDisk }
  | { kind: 'refused'; reason: string; message: string }

/**
 * Looks at one image. Files that the image names are followed only inside `root` (null: not bounded):
 * whoever writes an image could else name any file of the host.
 */
export async function findImage(wanted: ImageWanted, root: string | null): Promise<ImageFinding> {
  // What is said to be raw is read as it is, whatever a guest wrote to its start.
  const probe = await tryProbe(wanted.path, wanted.format)
  if ('failure' in probe) return failed(wanted, probe.failure)
  const wrong = contradiction(wanted, probe)
  if (wrong) return { kind: 'refused', reason: 'IMAGE_FORMAT_WRONG', message: wrong }
  if (probe.kind === 'damaged') {
    return {
      kind: 'refused',
      reason: 'IMAGE_DAMAGED',
      message: `disk ${wanted.id}: image ${wanted.path}: ${probe.problem}; restore it from a backup`,
    }
  }
  if (probe.kind === 'unsupported') return unsupported(wanted, probe.problem)
  const layers = await findLayers(wanted.path, probe, root)
  if ('kind' in layers) return problemOf(wanted, layers)
  const { format, sizeBytes } = probe
  const { id, path, format: statedFormat } = wanted
  const disk = { id, path, format, statedFormat, sizeBytes, layers }
  return { kind: 'disk', disk, refused: await firstIncomplete(filesOf(layers)) }
}

function problemOf(wanted: ImageWanted, { kind, message }: LayerProblem): ImageFinding {
  const about = `disk ${wanted.id}: image ${wanted.path}`
  switch (kind) {
    case 'unsupported':
      return unsupported(wanted, message)
    case 'damaged':
      return {
        kind: 'refused',
        reason: 'IMAGE_DAMAGED',
        message: `${about}: ${message}; restore it from a backup`,
      }
    case 'missing':
      return { kind: 'refused', reason: 'IMAGE_MISSING', message: `disk ${wanted.id}: ${message}` }
    case 'denied':
      return { kind: 'refused', reason: 'HOST_DENIED', message: `disk ${wanted.id}: ${message}` }
  }
}

async function firstIncomplete(paths: string[]): Promise<Vm['refused']> {
  for (const path of paths) {
    const refused = await restoreIncomplete(path)
    if (refused) return refused
  }
  return null
}

/** Puts findings together; an id that cannot be kept, or two disks of one id, refuse the VM. */
export function imageVm(
  about: Pick<ImageVm, 'identity' | 'name' | 'stop' | 'start'>,
  findings: ImageFinding[],
): ImageVm {
  const vm: ImageVm = { ...about, disks: [], uncovered: [], refused: null }
  const ids = new Set<string>()
  for (const finding of findings) {
    if (finding.kind === 'refused')
      vm.refused ??= { reason: finding.reason, message: finding.message }
    else if (finding.kind === 'uncovered') vm.uncovered.push(finding.uncovered)
    else {
      vm.refused ??= finding.refused
      if (!isDiskId(finding.disk.id)) vm.refused ??= badDiskId(about.name, finding.disk)
      if (ids.has(finding.disk.id)) {
        vm.refused ??= {
          reason: 'DISK_ID_DUPLICATE',
          message: `two disks of VM ${about.name} have the id ${finding.disk.id}; give each its own`,
        }
      }
      ids.add(finding.disk.id)
      vm.disks.push(finding.disk)
    }
  }
  return vm
}

const badDiskId = (vm: string, { id, path }: ImageDisk) => ({
  reason: 'ARGUMENT_INVALID',
  message: `VM ${JSON.stringify(vm)}: ${JSON.stringify(id)} cannot be the id of disk ${JSON.stringify(path)}; rename the image, or give it an "id" of ${diskIdRule} in vm.yaml`,
})

/** A machine that is off, made of images that a user names. Errors: ARGUMENT_INVALID. */
export async function imageVmOfPaths(identity: string, paths: string[]): Promise<ImageVm> {
  const findings: ImageFinding[] = []
  for (const path of paths) {
    if (resolve(path) !== path) {
      throw new BackupError('ARGUMENT_INVALID', `images "${path}": give an absolute path`, {
        field: 'images',
        value: path,
      })
    }
    // What the image names is read only out of its own folder: a folder host can span several.
    const finding = await findImage({ path, id: basename(path), format: null }, dirname(path))
    if (finding.kind === 'uncovered') {
      throw new BackupError('DISK_FORMAT_UNSUPPORTED', finding.uncovered.message, { path })
    }
    findings.push(finding)
  }
  return imageVm({ identity, name: identity, stop: null, start: null }, findings)
}

export const toVm = (vm: ImageVm): Vm => ({
  identity: vm.identity,
  name: vm.name,
  state: 'off',
  disks: vm.disks.map(toVmDisk),
  uncovered: vm.uncovered,
  refused: vm.refused,
  config: {
    driver: 'folder',
    commandLine: [],
    diskFiles: Object.fromEntries(vm.disks.map((disk) => [disk.id, disk.path])),
  },
})

const toVmDisk = ({ id, format, sizeBytes, path }: ImageDisk): VmDisk => ({
  id,
  format,
  sizeBytes,
  location: path,
})

function contradiction({ id, path, format }: ImageWanted, probe: ImageProbe): string | null {
  if (format === null || format === probe.format) return null
  return `disk ${id}: image ${path} is ${probe.format}, not ${format}; correct "format"`
}

function failed(wanted: ImageWanted, failure: string): ImageFinding {
  const { id, path } = wanted
  if (failure === 'ENOENT') {
    const message = `disk ${id}: image ${path} does not exist; correct the path or bring it back`
    return { kind: 'refused', reason: 'IMAGE_MISSING', message }
  }
  const message = `disk ${id}: open image ${path}: ${failure}; let this user read it`
  return {
    kind: 'uncovered',
    uncovered: { id, location: path, sizeBytes: 0, reason: 'HOST_DENIED', message },
  }
}

function unsupported({ id, path }: ImageWanted, problem: string): ImageFinding {
  return {
    kind: 'uncovered',
    uncovered: {
      id,
      location: path,
      sizeBytes: 0,
      reason: 'DISK_FORMAT_UNSUPPORTED',
      message: `disk ${id}: image ${path}: ${problem} cannot be read; convert it to qcow2`,
    },
  }
}

async function tryProbe(
  path: string,
  format: string | null,
): Promise<ImageProbe | { failure: string }> {
  try {
    return await (format === 'raw' ? probePlain(path) : probeImage(path))
  } catch (thrown) {
    return { failure: (thrown as NodeJS.ErrnoException).code ?? 'unreadable' }
  }
}
