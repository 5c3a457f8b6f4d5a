import { BackupError } from '@blockferry/errors'
import { snapshot } from '@blockferry/proto'
import { type Call, cutPage, type Handlers, type Page, pageOf } from '@blockferry/rpc'
import type { SnapshotConfig } from './config.ts'
import type { Drivers } from './drivers.ts'
import { imagesHost } from './host.ts'
import type { HostMemory } from './host_memory.ts'
import { type Inventory, takeInventory } from './inventory.ts'
import { locate } from './locate.ts'
import type { Points, TakenPoint } from './points.ts'
import {
  beginOf,
  checkHostName,
  checkPointId,
  checkText,
  leaseOf,
  newHostName,
  platformOf,
} from './request.ts'
import type { Store } from './store.ts'
import { foundToWire, hostToWire, pointToWire, vmToWire } from './wire.ts'

export interface SnapshotParts {
  config: SnapshotConfig
  store: Store
  memory: HostMemory
  drivers: Drivers
  points: Points
}

/** Translates calls; what is decided is decided in the other files. */
export function snapshotHandlers(parts: SnapshotParts): Handlers<snapshot.SnapshotServiceServer> {
  const { config, store, memory, drivers, points } = parts
  const { limits } = config

  async function inventoryOf(parent: string, signal: AbortSignal): Promise<Inventory> {
    await memory.refreshIfPossible()
    const hosts = memory.hosts.filter(({ name }) => parent === '' || name === parent)
    if (parent !== '' && hosts.length === 0) throw hostNotFound(parent)
    return await takeInventory(hosts, drivers, memory, limits.inventoryMs, signal)
  }

  async function take(
    request: snapshot.BeginPointRequest,
    signal: AbortSignal,
  ): Promise<TakenPoint> {
    const begin = beginOf(request)
    if (request.images.length > 0) {
      const driver = drivers.images
      const named = { ...begin, vmIdentity: request.vm }
      const point = await driver.beginPointOfImages(named, request.images, signal)
      return { host: imagesHost, driver, point }
    }
    const { host, vm } = locate(request.vm, await inventoryOf('', signal))
    const driver = drivers.forVm(host, vm)
    const point = await driver.beginPoint({ ...begin, vmIdentity: vm.identity }, signal)
    return { host, driver, point }
  }

  return {
    async createHost({ hostId, host, requestId }) {
      const name = newHostName(hostId)
      const platform = platformOf(host)
      const created = await store.createHost(name, platform, requestId)
      await memory.refresh()
      return { host: hostToWire(created) }
    },

    async getHost({ name }) {
      checkHostName(name, 'name')
      await memory.refresh()
      const host = memory.hosts.find((one) => one.name === name)
      if (!host) throw hostNotFound(name)
      return { host: hostToWire(host) }
    },

    async listHosts(request) {
      const page = pageOf(request)
      await memory.refresh()
      const { items, nextPageToken } = cut(memory.hosts.map(hostToWire), page, snapshot.Host)
      return { hosts: items, nextPageToken }
    },

    async deleteHost({ name }) {
      checkHostName(name, 'name')
      if (!(await store.deleteHost(name))) throw hostNotFound(name)
      await memory.refresh()
      return {}
    },

    async listVms(request, { signal }: Call) {
      const page = pageOf(request)
      if (request.parent !== '') checkHostName(request.parent, 'parent')
      const { vms, unreachable } = await inventoryOf(request.parent, signal)
      const { items, nextPageToken } = cut(vms.map(vmToWire), page, snapshot.Vm)
      return { vms: items, nextPageToken, unreachableHosts: unreachable }
    },

    async getVm({ name }, { signal }: Call) {
      checkText('name', name)
      return { vm: vmToWire(locate(name, await inventoryOf('', signal))) }
    },

    async beginPoint(request, { signal }: Call) {
      const { pointId } = beginOf(request)
      const leaseMs = leaseOf(request.leaseDuration, limits)
      const begin = (limit: AbortSignal) => take(request, limit)
      return { point: pointToWire(await points.begin(pointId, leaseMs, begin, signal)) }
    },

    async holdPoint({ pointId, leaseDuration }, { signal }: Call) {
      await points.hold(checkPointId(pointId), leaseOf(leaseDuration, limits), signal)
      return {}
    },

    async confirmPoint({ pointId }, { signal }: Call) {
      await points.confirm(checkPointId(pointId), signal)
      return {}
    },

    async releasePoint({ pointId, outcome }) {
      checkPointId(pointId)
      if (outcome === snapshot.PointOutcome.COMMITTED) await points.release(pointId, 'committed')
      else if (outcome === snapshot.PointOutcome.DROPPED) await points.release(pointId, 'dropped')
      else throw outcomeUnset()
      return {}
    },

    async listPoints(request, { signal }: Call) {
      const page = pageOf(request)
      await memory.refreshIfPossible()
      const found = (await points.find(signal)).map((one) =>
        foundToWire(one, points.isHeld(one.point.pointId)),
      )
      const { items, nextPageToken } = cut(found, page, snapshot.FoundPoint)
      return { points: items, nextPageToken }
    },
  }
}

/** One page of a listing that is whole in memory. */
const cut = <M>(all: M[], page: Page, type: Parameters<typeof cutPage<M>>[2]) =>
  cutPage(all.slice(page.offset), page, type)

const hostNotFound = (name: string) =>
  new BackupError('NOT_FOUND', `find ${name}: there is no such host; list the hosts`, { name })

const outcomeUnset = () =>
  new BackupError('ARGUMENT_INVALID', 'outcome is unset: say COMMITTED or DROPPED', {
    field: 'outcome',
    value: 'POINT_OUTCOME_UNSPECIFIED',
  })
