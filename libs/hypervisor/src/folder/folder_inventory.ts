// Which VMs a folder of images holds: every sub-folder with an image or a `vm.yaml`
// is one, every `*.yaml` in the folder itself is another. Nothing large is left out in
// silence: a file that is neither an image nor named in the YAML is reported as uncovered.
import type { Dirent } from 'node:fs'
import { lstat, readdir, readFile, stat } from 'node:fs/promises'
import { basename, extname, join, resolve } from 'node:path'
import { BackupError } from '@blockferry/errors'
import { filesOf } from '../image/image_layers.ts'
import { probeImage } from '../image/image_probe.ts'
import {
  findImage,
  type ImageFinding,
  type ImageVm,
  type ImageWanted,
  imageVm,
} from './image_vm.ts'
import { parseVmFile, type VmFile, VmFileInvalid } from './vm_file.ts'

const vmFileName = 'vm.yaml'
const yamlBytesMax = 256 * 1024
const diskExtensions = ['.raw', '.img', '.qcow2', '.vmdk', '.vhd', '.vhdx', '.vdi', '.qed']
// What a restore in place leaves beside an image: the one it replaced, and, while it works, the new
// one or the mark of a half restored one. None of them is a disk of the machine.
const restoreLeftover =
  /\.before-\d{8}-\d{6}-[0-9a-f]{6}$|^\..*\.part$|\.restore-incomplete(\.new)?$/
// Firmware variables, logs and scripts are smaller, disks are not.
const reportedBytesMin = 1024 * 1024
const emptyVmFile: VmFile = { id: null, name: null, disks: null, stop: null, start: null }

/** Errors: HOST_UNREACHABLE, HOST_DENIED. */
export async function listImageVms(folder: string, signal: AbortSignal): Promise<ImageVm[]> {
  const vms: ImageVm[] = []
  for (const entry of await listFolder(folder)) {
    signal.throwIfAborted()
    const path = join(folder, entry.name)
    if (await isFolder(entry, path)) {
      const vm = await vmOfFolder(path, folder)
      if (vm) vms.push(vm)
    } else if (extname(entry.name) === '.yaml' || extname(entry.name) === '.yml') {
      vms.push(await vmOfYaml(path, basename(entry.name, extname(entry.name)), folder))
    }
  }
  refuseDuplicates(vms)
  return vms.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
}

async function vmOfFolder(path: string, root: string): Promise<ImageVm | null> {
  const name = basename(path)
  let entries: Dirent[]
  try {
    entries = await readdir(path, { withFileTypes: true })
  } catch (thrown) {
    const code = (thrown as NodeJS.ErrnoException).code ?? 'unreadable'
    return refusedVm(name, 'HOST_DENIED', `list folder ${path}: ${code}; let this user read it`)
  }
  if (entries.some((entry) => entry.name === vmFileName)) {
    return await vmOfYaml(join(path, vmFileName), name, root)
  }
  const findings = await findEveryImage(path, entries, root)
  if (findings.length === 0) return null
  return imageVm({ identity: name, name, stop: null, start: null }, findings)
}

async function vmOfYaml(path: string, nameDefault: string, root: string): Promise<ImageVm> {
  const file = await readVmFile(path)
  if (typeof file === 'string') {
    return refusedVm(nameDefault, 'ARGUMENT_INVALID', `${path}: ${file}; correct the file`)
  }
  const folder = resolve(path, '..')
  const identity = file.id ?? nameDefault
  const about = { identity, name: file.name ?? nameDefault, stop: file.stop, start: file.start }
  if (file.disks) {
    const wanted: ImageWanted[] = file.disks.map((disk) => ({
      path: resolve(folder, disk.file),
      id: disk.id ?? basename(disk.file),
      format: disk.format,
    }))
    return imageVm(about, await findAll(wanted, root))
  }
  if (folder === resolve(root)) {
    return refusedVm(
      nameDefault,
      'ARGUMENT_INVALID',
      `${path}: "disks" is missing; name the images`,
    )
  }
  const entries = await readdir(folder, { withFileTypes: true })
  return imageVm(about, await findEveryImage(folder, entries, root))
}

/** The images of a folder in the order of their names, and what else is large. */
async function findEveryImage(folder: string, entries: Dirent[], root: string) {
  const wanted: ImageWanted[] = []
  const others: ImageFinding[] = []
  for (const { name } of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (restoreLeftover.test(name)) continue
    const path = join(folder, name)
    const found = await stat(path).catch(() => null)
    if (found && !found.isFile()) continue
    if (await looksLikeImage(path)) wanted.push({ path, id: name, format: null })
    else if (found && found.size >= reportedBytesMin) others.push(notAnImage(path, found.size))
  }
  return withoutBackingFiles([...(await findAll(wanted, root)), ...others])
}

async function findAll(wanted: ImageWanted[], root: string): Promise<ImageFinding[]> {
  const findings: ImageFinding[] = []
  for (const image of wanted) findings.push(await findImage(image, resolve(root)))
  return findings
}

/** A file that only belongs to an image beside it, as its base or extent, is no disk of its own. */
function withoutBackingFiles(findings: ImageFinding[]): ImageFinding[] {
  const below = new Set(
    findings.flatMap((one) => (one.kind === 'disk' ? filesOf(one.disk.layers).slice(1) : [])),
  )
  return findings.filter(
    (one) =>
      !(one.kind === 'disk' && below.has(one.disk.path)) &&
      !(one.kind === 'uncovered' && below.has(one.uncovered.location)),
  )
}

async function looksLikeImage(path: string): Promise<boolean> {
  if (diskExtensions.includes(extname(path).toLowerCase())) return true
  const probe = await probeImage(path).catch(() => null)
  return probe !== null && !(probe.kind === 'readable' && probe.format === 'raw')
}

const notAnImage = (path: string, sizeBytes: number): ImageFinding => ({
  kind: 'uncovered',
  uncovered: {
    id: basename(path),
    location: path,
    sizeBytes,
    reason: 'DISK_FORMAT_UNSUPPORTED',
    message: `${path} is not known to be a disk; if it is one, name it under "disks" in ${vmFileName}`,
  },
})

/** The parsed file, or what is wrong with it. */
async function readVmFile(path: string): Promise<VmFile | string> {
  try {
    const { size } = await stat(path)
    if (size > yamlBytesMax) return `larger than ${yamlBytesMax} bytes`
    const text = await readFile(path, 'utf8')
    return text.trim() === '' ? emptyVmFile : parseVmFile(text)
  } catch (thrown) {
    if (thrown instanceof VmFileInvalid) return thrown.message
    return (thrown as NodeJS.ErrnoException).code ?? 'unreadable'
  }
}

function refusedVm(name: string, reason: string, message: string): ImageVm {
  const about = { identity: name, name, stop: null, start: null }
  return { ...about, disks: [], uncovered: [], refused: { reason, message } }
}

function refuseDuplicates(vms: ImageVm[]): void {
  const counts = new Map<string, number>()
  for (const { identity } of vms) counts.set(identity, (counts.get(identity) ?? 0) + 1)
  for (const vm of vms) {
    if ((counts.get(vm.identity) ?? 0) < 2) continue
    vm.refused = {
      reason: 'VM_UUID_DUPLICATE',
      message: `several VMs of the folder have the id ${vm.identity}; give each its own "id"`,
    }
  }
}

async function listFolder(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true })
  } catch (thrown) {
    const code = (thrown as NodeJS.ErrnoException).code ?? 'unreadable'
    const denied = code === 'EACCES' || code === 'EPERM'
    throw new BackupError(
      denied ? 'HOST_DENIED' : 'HOST_UNREACHABLE',
      `list VMs in folder ${folder}: ${code}; ${denied ? 'let this user read it' : 'is it mounted?'}`,
      { folder, cause: code },
    )
  }
}

async function isFolder(entry: Dirent, path: string): Promise<boolean> {
  if (entry.isDirectory()) return true
  if (!entry.isSymbolicLink()) return false
  return (await stat(path).catch(() => lstat(path))).isDirectory()
}
