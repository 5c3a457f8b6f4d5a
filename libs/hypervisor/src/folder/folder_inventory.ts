// Which VMs a folder of images holds: every sub-folder with an image or a `vm.yaml`
// is one, every `*.yaml` in the folder itself is another. Nothing large is left out in
// silence: a file that is neither an image nor named in the YAML is reported as uncovered, and so
// is an image in a folder further down.
import type { Dirent } from 'node:fs'
import { lstat, readdir, readFile, stat } from 'node:fs/promises'
import { basename, extname, join, resolve } from 'node:path'
import { BackupError } from '@blockferry/errors'
import { filesOf } from '../image/image_layers.ts'
import { type FolderFile, type FolderUnseen, filesIn, imagesBelow } from './image_files.ts'
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
  const below = await findBelow(path, entries, root, findings)
  return imageVm({ identity: name, name, stop: null, start: null }, [...findings, ...below])
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
  const findings = await findEveryImage(folder, entries, root)
  return imageVm(about, [...findings, ...(await findBelow(folder, entries, root, findings))])
}

/** The images of a folder, and what else is large. */
async function findEveryImage(folder: string, entries: Dirent[], root: string) {
  const files = await filesIn(folder, entries)
  const images = files.filter(({ isImage }) => isImage)
  const others = files.filter((file) => !file.isImage && file.sizeBytes >= reportedBytesMin)
  const findings = await findAll(images.map(asWanted), root)
  return withoutBackingFiles([...findings, ...others.map(notAnImage)])
}

/**
 * An image in a sub-folder is no disk, but the machine may really run from it, as from VirtualBox's
 * snapshots: then what lies above is its disk as it was once. `above` are the findings there.
 */
async function findBelow(
  folder: string,
  entries: Dirent[],
  root: string,
  above: ImageFinding[],
): Promise<ImageFinding[]> {
  const { images, unseen } = await imagesBelow(folder, entries)
  const findings = await findAll(images.map(asWanted), root)
  const used = new Set([
    ...above.flatMap((one) => (one.kind === 'disk' ? filesOf(one.disk.layers) : [])),
    ...findings.flatMap((one) => (one.kind === 'disk' ? filesOf(one.disk.layers).slice(1) : [])),
  ])
  const uncovered = images.flatMap((file, index) => {
    const finding = findings[index]
    return finding && !used.has(file.path) ? [noDiskBelow(file, finding)] : []
  })
  return [...uncovered, ...unseen.map(notSeen)]
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

const asWanted = ({ path, name }: FolderFile): ImageWanted => ({ path, id: name, format: null })

const nameIt = `name it under "disks" in ${vmFileName}`

const uncovered = (
  { name, path, sizeBytes }: Omit<FolderFile, 'isImage'>,
  reason: string,
  message: string,
): ImageFinding => ({
  kind: 'uncovered',
  uncovered: { id: name, location: path, sizeBytes, reason, message },
})

const notAnImage = (file: FolderFile): ImageFinding =>
  uncovered(
    file,
    'DISK_FORMAT_UNSUPPORTED',
    `${file.path} is not known to be a disk; if it is one, ${nameIt}`,
  )

function noDiskBelow(file: FolderFile, finding: ImageFinding): ImageFinding {
  const advice = `if the machine runs from it, as from a snapshot, the backup holds an older state of its disk: delete the snapshot, or ${nameIt}`
  if (finding.kind === 'disk') {
    const message = `image ${file.path} lies in a sub-folder and is not backed up; ${advice}`
    return uncovered(file, 'DISK_FORMAT_UNSUPPORTED', message)
  }
  const { reason, message } = finding.kind === 'uncovered' ? finding.uncovered : finding
  return uncovered(file, reason, `${message}; ${advice}`)
}

const notSeen = ({ name, path, cause }: FolderUnseen): ImageFinding =>
  uncovered(
    { name, path, sizeBytes: 0 },
    'HOST_DENIED',
    `look for images in ${path}: ${cause}; it was not looked into: name the machine's disks under "disks" in ${vmFileName}`,
  )

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
