// QEMU's block layer as one consistent picture: devices of the guest on top, nodes
// below them, exports beside. Read anew for each step, never kept.
import type { Qmp } from '../qmp.ts'
import { type Bitmap, bitmapsOf } from './bitmaps.ts'

/** A disk device of the guest. */
export interface Frontend {
  /** Where its `drive` property is set. */
  qomPath: string
  /** The device's id, or null when QEMU made up its place. */
  deviceId: string | null
  /** Id of a legacy -drive, or empty. */
  driveId: string
  /** The node it reads, or null for an empty tray. */
  node: string | null
  removable: boolean
  readOnly: boolean
}

export interface BlockNode {
  name: string
  driver: string
  /** File name as QEMU prints it: for most nodes the text of its command line. */
  file: string
  sizeBytes: number
  readOnly: boolean
  bitmaps: Bitmap[]
  /** qcow2 version 3, which can store bitmaps. */
  storesBitmaps: boolean
}

export interface BlockExport {
  id: string
  node: string
}

// Filters pass every request through unchanged, so the disk is what lies below.
const filters = new Set(['copy-before-write', 'copy-on-read', 'throttle', 'preallocate'])

export class BlockGraph {
  readonly frontends: Frontend[]
  readonly nodes: Map<string, BlockNode>
  readonly exports: BlockExport[]
  #files: Map<string, string>

  private constructor(
    frontends: Frontend[],
    nodes: BlockNode[],
    exports: BlockExport[],
    files: Map<string, string>,
  ) {
    this.frontends = frontends
    this.nodes = new Map(nodes.map((node) => [node.name, node]))
    this.exports = exports
    this.#files = files
  }

  static async read(qmp: Qmp): Promise<BlockGraph> {
    const [blocks, nodes, exports, graph] = await Promise.all([
      qmp.execute<BlockAnswer[]>('query-block'),
      qmp.execute<NodeAnswer[]>('query-named-block-nodes', { flat: true }),
      qmp.execute<{ id: string; 'node-name': string }[]>('query-block-exports'),
      qmp.execute<GraphAnswer>('x-debug-query-block-graph'),
    ])
    return new BlockGraph(
      blocks.filter(({ qdev }) => qdev !== undefined).map(frontendOf),
      nodes.map(nodeOf),
      exports.map((one) => ({ id: one.id, node: one['node-name'] })),
      fileChildren(graph),
    )
  }

  /** The node below `name` that it filters or formats, or null. */
  fileOf(name: string): BlockNode | null {
    return this.nodes.get(this.#files.get(name) ?? '') ?? null
  }

  /** The first node from `name` downwards that is no filter: the disk's format. */
  formatNode(name: string): BlockNode | null {
    let node = this.nodes.get(name) ?? null
    while (node && filters.has(node.driver)) node = this.fileOf(node.name)
    return node
  }

  /** The device that reads `node` now, or null. */
  frontendOn(node: string): Frontend | null {
    return this.frontends.find((frontend) => frontend.node === node) ?? null
  }
}

interface BlockAnswer {
  device: string
  qdev?: string
  removable: boolean
  inserted?: { 'node-name': string; ro: boolean }
}

interface NodeAnswer {
  'node-name': string
  drv: string
  ro: boolean
  file: string
  image: { 'virtual-size': number; 'format-specific'?: { data?: { compat?: string } } }
  'dirty-bitmaps'?: { name?: string; recording: boolean; busy: boolean; inconsistent?: boolean }[]
}

interface GraphAnswer {
  nodes: { id: number; name: string; type: string }[]
  edges: { parent: number; child: number; name: string }[]
}

function frontendOf(block: BlockAnswer): Frontend {
  const qdev = block.qdev ?? ''
  // A device with an id is shown by it, one without by its place in the object tree.
  const qomPath = qdev.startsWith('/') ? qdev : `/machine/peripheral/${qdev}`
  return {
    qomPath,
    deviceId: /^\/machine\/peripheral\/([^/]+)/.exec(qomPath)?.[1] ?? null,
    driveId: block.device,
    node: block.inserted?.['node-name'] ?? null,
    removable: block.removable,
    readOnly: block.inserted?.ro ?? false,
  }
}

const nodeOf = (node: NodeAnswer): BlockNode => ({
  name: node['node-name'],
  driver: node.drv,
  file: node.file,
  sizeBytes: node.image['virtual-size'],
  readOnly: node.ro,
  bitmaps: bitmapsOf(node),
  storesBitmaps:
    node.drv === 'qcow2' && !node.ro && node.image['format-specific']?.data?.compat !== '0.10',
})

function fileChildren(graph: GraphAnswer): Map<string, string> {
  const names = new Map(graph.nodes.map(({ id, name }) => [id, name]))
  const files = graph.edges.filter(({ name }) => name === 'file')
  return new Map(files.map((edge) => [names.get(edge.parent) ?? '', names.get(edge.child) ?? '']))
}
