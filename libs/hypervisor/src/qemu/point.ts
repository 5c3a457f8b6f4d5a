// What a point is inside QEMU, step by step, and how it goes away again. Every step
// of the way back finds what it needs by name in QEMU, and takes a missing piece for
// done: so it mends whatever a crash left, by whichever process.
import { sleep } from '@blockferry/core'
import { removeExport } from '../nbd_export.ts'
import { type Qmp, QmpRefusal } from '../qmp.ts'
import {
  type Bitmap,
  bitmapsBesides,
  bitmapsOfPoint,
  type ChosenBase,
  removeBitmap,
  viewName,
} from './bitmaps.ts'
import type { Fleece } from './fleece.ts'
import { BlockGraph } from './graph.ts'
import { parseTaggedName, taggedName } from './names.ts'
import type { QemuDisk } from './vm.ts'

// How long a guest's write may wait for the fleece store before the point is given up. Guests
// give up on a disk after 30 s. QEMU 7.2 keeps the nanoseconds in 32 bits: 5 s became 0.7 s.
const cbwTimeoutSeconds = 4
const exportConnectionsMax = 16

export interface PointNames {
  tag: string
  pointId: string
}

const nameOf = ({ tag, pointId }: PointNames, part: string) => taggedName(tag, pointId, part)

export const exportNameOf = (names: PointNames, index: number): string => nameOf(names, `e${index}`)

export const filterNameOf = (names: PointNames, index: number): string => nameOf(names, `c${index}`)

export const startServer = (qmp: Qmp, socketPath: string): Promise<unknown> =>
  qmp.execute('nbd-server-start', {
    addr: { type: 'unix', data: { path: socketPath } },
    'max-connections': exportConnectionsMax,
  })

/** Fleece stores and filters of all disks; the guest does not use them yet. */
export async function addFilters(
  qmp: Qmp,
  names: PointNames,
  disks: QemuDisk[],
  fleece: Fleece,
): Promise<void> {
  for (const [index, disk] of disks.entries()) {
    const store = nameOf(names, `f${index}`)
    await qmp.execute('blockdev-add', await fleece.create(store, disk.sizeBytes))
    await qmp.execute('blockdev-add', {
      driver: 'copy-before-write',
      'node-name': filterNameOf(names, index),
      file: disk.node,
      target: store,
      // A full or hanging store breaks the point, never the guest.
      'on-cbw-error': 'break-snapshot',
      'cbw-timeout': cbwTimeoutSeconds,
    })
  }
}

/** Exports of the point; only after the devices use the filters, which own the write permission. */
export async function addExports(qmp: Qmp, names: PointNames, chosen: ChosenBase[]): Promise<void> {
  for (const [index, { disk, base }] of chosen.entries()) {
    const node = nameOf(names, `s${index}`)
    await qmp.execute('blockdev-add', {
      driver: 'snapshot-access',
      'node-name': node,
      file: filterNameOf(names, index),
    })
    const bitmaps = base ? [{ node: disk.node, name: viewName(names.pointId) }] : []
    await qmp.execute('block-export-add', {
      type: 'nbd',
      id: exportNameOf(names, index),
      name: exportNameOf(names, index),
      'node-name': node,
      writable: false,
      bitmaps,
    })
  }
}

/** Takes everything of a point out of QEMU except its recording bitmaps. Errors: HOST_DENIED. */
export async function removePoint(qmp: Qmp, names: PointNames, socketPath: string): Promise<void> {
  const graph = await BlockGraph.read(qmp)
  const parts = (kind: string, all: Iterable<string>) =>
    [...all].filter((name) => {
      const parsed = parseTaggedName(name)
      return (
        parsed?.tag === names.tag && parsed.pointId === names.pointId && parsed.part[0] === kind
      )
    })
  const nodes = [...graph.nodes.keys()]
  const exports = graph.exports.map(({ id }) => id)
  await cutStores(qmp, graph, parts('f', nodes))
  for (const id of parts('e', exports)) await removeExport(qmp, id, socketPath)
  for (const name of parts('s', nodes)) await removeNode(qmp, name)
  for (const name of parts('c', nodes)) {
    const frontend = graph.frontendOn(name)
    const below = graph.fileOf(name)
    if (frontend && below) {
      const value = { path: frontend.qomPath, property: 'drive', value: below.name }
      // A device that is unplugged at this moment is gone, and its filter is free.
      await qmp.execute('qom-set', value).catch(ignoreRefusal)
    }
    await removeNode(qmp, name)
  }
  for (const name of parts('f', nodes)) await removeNode(qmp, name)
  const view = viewName(names.pointId)
  for (const node of graph.nodes.values()) {
    if (!node.bitmaps.some(({ name }) => name === view)) continue
    await removeBitmap(qmp, node.name, view).catch(ignoreRefusal)
  }
}

/**
 * Ends connections to remote fleece stores. Taking the filter away waits for the requests under
 * way, and so does every write of the guest meanwhile: a store that hangs would hang the guest.
 */
async function cutStores(qmp: Qmp, graph: BlockGraph, stores: string[]): Promise<void> {
  const remote = stores.filter((name) => graph.nodes.get(name)?.driver === 'nbd')
  for (const name of remote) {
    const instances = [{ type: 'block-node', 'node-name': name }]
    await qmp.execute('yank', { instances }).catch(ignoreRefusal)
  }
}

/** Removes the recording bitmaps of a point that was not committed. */
export async function removePointBitmaps(qmp: Qmp, pointId: string): Promise<void> {
  await removeBitmaps(qmp, (bitmaps) => bitmapsOfPoint(bitmaps, pointId))
}

/** Removes this repository's bitmaps that no later point needs. */
export async function removeOldBitmaps(
  qmp: Qmp,
  repositoryId: string,
  keptPointIds: string[],
): Promise<void> {
  await removeBitmaps(qmp, (bitmaps) => bitmapsBesides(bitmaps, repositoryId, keptPointIds))
}

async function removeBitmaps(qmp: Qmp, choose: (bitmaps: Bitmap[]) => string[]): Promise<void> {
  const graph = await BlockGraph.read(qmp)
  for (const node of graph.nodes.values()) {
    for (const name of choose(node.bitmaps)) {
      await removeBitmap(qmp, node.name, name).catch(ignoreRefusal)
    }
  }
}

async function removeNode(qmp: Qmp, name: string): Promise<void> {
  // Requests that are under way hold a node for a moment after its last user left.
  for (let attempt = 0; ; attempt++) {
    try {
      await qmp.execute('blockdev-del', { 'node-name': name })
      return
    } catch (thrown) {
      if (!(thrown instanceof QmpRefusal)) throw thrown
      if (/Failed to find|Cannot find/.test(thrown.description)) return
      if (attempt >= 30) throw thrown
      await sleep(100)
    }
  }
}

function ignoreRefusal(thrown: unknown): void {
  if (!(thrown instanceof QmpRefusal)) throw thrown
}
