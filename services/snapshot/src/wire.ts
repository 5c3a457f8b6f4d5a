// Our types as the proto says them.
import type { Point, UncoveredDisk, Vm, VmState } from '@blockferry/hypervisor'
import { backup, durationFromMs, snapshot } from '@blockferry/proto'
import { type Host, type LocatedVm, type Platform, vmName } from './host.ts'
import type { FoundOnHost, TakenPoint } from './points.ts'

const states: Record<VmState, snapshot.VmState> = {
  running: snapshot.VmState.RUNNING,
  paused: snapshot.VmState.PAUSED,
  off: snapshot.VmState.OFF,
}

const consistencies: Record<Point['consistency'], backup.Consistency> = {
  crash: backup.Consistency.CRASH,
  filesystem: backup.Consistency.FILESYSTEM,
  application: backup.Consistency.APPLICATION,
  off: backup.Consistency.OFF,
}

export const hostToWire = ({ name, platform, createTimeMs }: Host): snapshot.Host => ({
  name,
  platform: platformToWire(platform),
  createTime: new Date(createTimeMs),
})

const platformToWire = (platform: Platform): NonNullable<snapshot.Host['platform']> =>
  'qemu' in platform
    ? { $case: 'qemu', value: platform.qemu }
    : { $case: 'folder', value: platform.folder }

export const vmToWire = ({ host, vm }: LocatedVm): snapshot.Vm => ({
  name: vmName(host, vm.identity),
  identity: vm.identity,
  displayName: vm.name,
  state: states[vm.state],
  disks: vm.disks.map(({ id, sizeBytes, format, location }) => ({
    ...{ disk: id, sizeBytes: BigInt(sizeBytes), format, location },
  })),
  uncoveredDisks: vm.uncovered.map(uncoveredToWire),
  refusalReason: vm.refused?.reason ?? '',
  refusalMessage: vm.refused?.message ?? '',
  method: methodOf(vm),
})

const uncoveredToWire = (disk: UncoveredDisk): backup.UncoveredDisk => ({
  disk: disk.id,
  location: disk.location,
  sizeBytes: BigInt(disk.sizeBytes),
  reason: disk.reason,
  message: disk.message,
})

const methodOf = (vm: Vm) => (vm.state === 'off' ? backup.Method.HOST : backup.Method.CONSOLIDATED)

export function pointToWire({ host, driver, point }: TakenPoint): snapshot.Point {
  const { vm } = point
  return {
    pointId: point.pointId,
    vm: vmToWire({ host, vm }),
    disks: point.disks.map((disk) => diskToWire(disk, vm)),
    consistency: consistencies[point.consistency],
    pointTime: new Date(point.timeMs),
    freezeDuration: durationFromMs(point.frozenMs),
    pauseDuration: durationFromMs(point.pausedMs),
    decisions: [
      ...point.decisions.map((note) => ({ ...note, disk: '' })),
      ...point.disks.flatMap(({ id, decisions }) =>
        decisions.map((note) => ({ ...note, disk: id })),
      ),
    ],
    vmConfigJson: JSON.stringify(vm.config),
    driver: driver.name,
    method: methodOf(vm),
  }
}

function diskToWire(disk: Point['disks'][number], vm: Vm): snapshot.PointDisk {
  const about = vm.disks.find(({ id }) => id === disk.id)
  const { address } = disk
  return {
    disk: disk.id,
    sizeBytes: BigInt(disk.sizeBytes),
    format: about?.format ?? '',
    location: about?.location ?? '',
    address:
      address.kind === 'nbd'
        ? { $case: 'nbdUri', value: address.uri }
        : { $case: 'rawPath', value: address.path },
    changedContext: disk.changedContext ?? '',
    dataExtents: disk.dataExtents ? dataExtents(disk.dataExtents) : undefined,
    baseBackup: disk.baseBackupId ?? '',
  }
}

export const foundToWire = (found: FoundOnHost, held: boolean): snapshot.FoundPoint => ({
  pointId: found.point.pointId,
  vm: found.point.vmIdentity ? vmName(found.host, found.point.vmIdentity) : '',
  owner: found.point.owner,
  ours: found.point.ours,
  held,
})

const dataExtents = (flat: number[]): snapshot.DataExtents => ({
  extents: flat.flatMap((offset, index) =>
    index % 2 === 0
      ? [{ byteOffset: BigInt(offset), sizeBytes: BigInt(flat[index + 1] ?? 0) }]
      : [],
  ),
})
