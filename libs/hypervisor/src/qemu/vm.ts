import { resolve } from 'node:path'
import { diskIdRule, isDiskId } from '../disk_id.ts'
import type { UncoveredDisk, Vm, VmConfig, VmDisk, VmState } from '../driver.ts'
import type { Qmp } from '../qmp.ts'
import { restoreIncomplete } from '../restore_mark.ts'
import type { BitmapDisk } from './bitmaps.ts'
import { BlockGraph, type BlockNode, type Frontend } from './graph.ts'
import type { QemuProcess } from './process.ts'

/** A disk with its place in QEMU's block graph. */
export interface QemuDisk extends VmDisk {
  /** Where the device's `drive` property is. */
  qomPath: string
  /** The node that the device reads when no point is taken. */
  node: string
  /** The disk as the bitmap rule sees it. */
  bitmaps: BitmapDisk
}

/** A VM as its monitor describes it now. */
export interface QemuVm {
  vm: Vm
  disks: QemuDisk[]
  graph: BlockGraph
  /** QEMU's own word for its state, for example running or io-error. */
  status: string
  agentSocket: string | null
  process: QemuProcess | null
}

const nullUuid = '00000000-0000-0000-0000-000000000000'

export async function readVm(
  qmp: Qmp,
  monitor: string,
  process: QemuProcess | null,
): Promise<QemuVm> {
  const [{ UUID: uuid }, { name }, { status }, graph, devices] = await Promise.all([
    qmp.execute<{ UUID: string }>('query-uuid'),
    qmp.execute<{ name?: string }>('query-name'),
    qmp.execute<{ status: string }>('query-status'),
    BlockGraph.read(qmp),
    readDevices(qmp),
  ])
  const shownName = name ?? uuid
  const disks: QemuDisk[] = []
  const uncovered: UncoveredDisk[] = devices.flatMap(passedThrough)
  for (const frontend of graph.frontends) {
    const found = await readDisk(qmp, graph, frontend, devices)
    if (found && 'reason' in found) uncovered.push(found)
    else if (found) disks.push(found)
  }
  const vm: Vm = {
    identity: uuid === nullUuid ? `without-uuid:${name ?? monitor}` : uuid,
    name: shownName,
    state: stateOf(status),
    disks: disks.map(({ id, format, sizeBytes, location }) => ({
      ...{ id, format, sizeBytes, location },
    })),
    uncovered,
    refused: refusal(uuid, shownName, status, disks) ?? (await firstIncomplete(disks, process)),
    config: configOf(process, disks),
  }
  const agentSocket = await readAgentSocket(qmp, devices, process)
  return { vm, disks, graph, status, agentSocket, process }
}

/** States in which the VM's disks cannot be shown at one instant, with what to do. */
const unsuitable: Record<string, string> = {
  'io-error': 'it was stopped by an error of its storage; mend that and continue it',
  'internal-error': 'QEMU stopped it after an internal error; restart it',
  inmigrate: 'it is being migrated to this host; wait until it runs',
  'finish-migrate': 'it is being migrated; wait until it runs on the other host',
  postmigrate: 'it was migrated to another host; back it up there',
  'save-vm': 'its state is being saved; wait for the end',
  'restore-vm': 'its state is being restored; wait for the end',
}

function stateOf(status: string): VmState {
  return status === 'running' ? 'running' : 'paused'
}

function refusal(uuid: string, name: string, status: string, disks: QemuDisk[]): Vm['refused'] {
  if (uuid === nullUuid) {
    const message = `VM ${name} has no UUID, so it cannot be told from others: add for example -uuid "$(uuidgen)" to its QEMU command line`
    return { reason: 'VM_WITHOUT_UUID', message }
  }
  const state = unsuitable[status]
  if (state) return { reason: 'VM_STATE_UNSUITABLE', message: `VM ${name} is ${status}: ${state}` }
  const ids = disks.map(({ id }) => id)
  const bad = ids.find((id) => !isDiskId(id))
  if (bad !== undefined) {
    const message = `VM ${name}: ${JSON.stringify(bad)} cannot be the id of a disk; give its -device a serial of ${diskIdRule}`
    return { reason: 'ARGUMENT_INVALID', message }
  }
  const twice = ids.find((id, index) => ids.indexOf(id) !== index)
  if (twice !== undefined) {
    const message = `VM ${name} has two disks ${twice}: give each -device a serial of its own`
    return { reason: 'DISK_ID_DUPLICATE', message }
  }
  if (disks.length > 0) return null
  return { reason: 'VM_WITHOUT_DISKS', message: `VM ${name} has no disk that QEMU can read` }
}

/** A machine that was started from an image that is half restored. */
async function firstIncomplete(
  disks: QemuDisk[],
  process: QemuProcess | null,
): Promise<Vm['refused']> {
  for (const { location } of disks) {
    const found = await restoreIncomplete(resolve(process?.cwd ?? '/', location))
    if (found) return { ...found, message: `${found.message}; shut the VM down first` }
  }
  return null
}

interface Device {
  path: string
  type: string
}

/** The devices that were added by the command line or plugged in later. */
async function readDevices(qmp: Qmp): Promise<Device[]> {
  const places = ['/machine/peripheral', '/machine/peripheral-anon']
  const lists = await Promise.all(
    places.map(async (place) => {
      const children = await qmp.execute<{ name: string; type: string }[]>('qom-list', {
        path: place,
      })
      return children.map(({ name, type }) => ({
        path: `${place}/${name}`,
        type: /^child<(.*)>$/.exec(type)?.[1] ?? '',
      }))
    }),
  )
  return lists.flat()
}

/** Devices that may carry disks past QEMU's block layer, where no backup from outside sees them. */
function passedThrough({ path, type }: Device): UncoveredDisk[] {
  if (!/^(vfio-pci|vhost-user-blk|vhost-user-scsi|vhost-scsi)/.test(type)) return []
  const id = path.split('/').at(-1) ?? path
  const message = `${type} ${id} is handed to the guest directly; disks behind it need the agent method`
  return [{ id, location: type, sizeBytes: 0, reason: 'DISK_NOT_COVERED', message }]
}

/** Where QEMU's name of a driver is not the format's. */
const formatNames: Record<string, string> = { vpc: 'vhd', file: 'raw', host_device: 'raw' }

async function readDisk(
  qmp: Qmp,
  graph: BlockGraph,
  frontend: Frontend,
  devices: Device[],
): Promise<QemuDisk | UncoveredDisk | null> {
  if (frontend.node === null || (frontend.removable && frontend.readOnly)) return null
  const root = belowOurFilter(graph, frontend.node)
  const format = root && graph.formatNode(root.name)
  if (!root || !format) return null
  const id = await readDiskId(qmp, frontend, format)
  const place = { id, location: format.file, sizeBytes: format.sizeBytes }
  const type = devices.find(({ path }) => path === frontend.qomPath)?.type ?? ''
  if (type === 'scsi-generic' || type === 'scsi-block') {
    const message = `disk ${id} is handed to the guest as a SCSI device; use scsi-hd, or the agent method`
    return { ...place, reason: 'DISK_NOT_COVERED', message }
  }
  if (!frontend.qomPath.startsWith('/machine/peripheral')) {
    if (frontend.readOnly) return null
    const message = `${frontend.qomPath} is part of the machine, for example UEFI variables; copy ${format.file} by hand`
    return { ...place, reason: 'DISK_NOT_COVERED', message }
  }
  if (await hasIothread(qmp, frontend, devices)) {
    // QEMU 7.2 aborts, and the guest with it, when a client leaves an export of such a disk
    // (blockdev-nbd.c: Assertion `qemu_in_main_thread()').
    const message = `disk ${id} has an iothread, and QEMU would abort when such a disk is read; start the VM without iothread for it, or back it up while it is off`
    return { ...place, reason: 'DISK_NOT_COVERED', message }
  }
  if (format.driver === 'vvfat' || graph.fileOf(format.name)?.driver === 'vvfat') {
    const message = `disk ${id} is a folder shown as a disk; back up the folder`
    return { ...place, reason: 'DISK_FORMAT_UNSUPPORTED', message }
  }
  return {
    ...place,
    format: formatNames[format.driver] ?? format.driver,
    qomPath: frontend.qomPath,
    node: root.name,
    bitmaps: {
      ...{ id, sizeBytes: format.sizeBytes, node: format.name, bitmaps: format.bitmaps },
      storesBitmaps: format.storesBitmaps,
    },
  }
}

/** Whether the device, or the controller it hangs on, leaves QEMU's main thread. */
async function hasIothread(qmp: Qmp, frontend: Frontend, devices: Device[]): Promise<boolean> {
  const read = (path: string, property: string) =>
    qmp.execute<string>('qom-get', { path, property }).catch(() => '')
  const bus = await read(frontend.qomPath, 'parent_bus')
  const mine = devices.filter(({ path }) =>
    [frontend.qomPath, bus].some((place) => place === path || place.startsWith(`${path}/`)),
  )
  const iothreads = await Promise.all(mine.map(({ path }) => read(path, 'iothread')))
  return iothreads.some((iothread) => iothread !== '')
}

/** What the device reads without the filter that a point of ours or of others put on top. */
function belowOurFilter(graph: BlockGraph, name: string): BlockNode | null {
  const node = graph.nodes.get(name) ?? null
  return node?.driver === 'copy-before-write' ? graph.fileOf(name) : node
}

/** Serial, else the device's id, else the legacy drive's, else the file: never a position. */
async function readDiskId(qmp: Qmp, frontend: Frontend, format: BlockNode): Promise<string> {
  const serial = await qmp
    .execute<string>('qom-get', { path: frontend.qomPath, property: 'serial' })
    .catch(() => '')
  // QEMU numbers IDE disks QM00001, QM00002, … by itself.
  if (serial && !/^QM\d{5}$/.test(serial)) return serial
  if (frontend.deviceId) return frontend.deviceId
  // So it does with drives: virtio0, ide0-hd1, …
  if (frontend.driveId && !/^[a-z]+\d+(-[a-z]+\d+)?$/.test(frontend.driveId)) {
    return frontend.driveId
  }
  return format.file.split('/').at(-1) ?? format.file
}

function configOf(process: QemuProcess | null, disks: QemuDisk[]): VmConfig {
  const commandLine = process?.commandLine ?? []
  // As it is, with QEMU's doubled commas, or as JSON.
  const formsOf = (location: string): string[] => [
    location,
    location.replaceAll(',', ',,'),
    JSON.stringify(location).slice(1, -1),
  ]
  const named = disks.filter(({ location }) =>
    commandLine.some((argument) => formsOf(location).some((form) => argument.includes(form))),
  )
  return {
    driver: 'qemu',
    commandLine,
    diskFiles: Object.fromEntries(named.map(({ id, location }) => [id, location])),
  }
}

async function readAgentSocket(
  qmp: Qmp,
  devices: Device[],
  process: QemuProcess | null,
): Promise<string | null> {
  for (const { path, type } of devices) {
    if (type !== 'virtserialport') continue
    const name = await qmp.execute('qom-get', { path, property: 'name' })
    if (name !== 'org.qemu.guest_agent.0') continue
    const chardev = await qmp.execute('qom-get', { path, property: 'chardev' })
    const chardevs = await qmp.execute<{ label: string; filename: string }[]>('query-chardev')
    const filename = chardevs.find(({ label }) => label === chardev)?.filename ?? ''
    const socket = /unix:([^,]+)/.exec(filename)?.[1]
    return socket ? resolve(process?.cwd ?? '/', socket) : null
  }
  return null
}
