// An image as a node of QEMU. Every file is given by its path and every format by its name, so that
// nothing that an image says can make QEMU open another file, or guess what a file is. Only the
// extents of a VMDK are opened by their names in it; see StorageDaemon.assertOpened.
import type { ImageLayer } from './image_layers.ts'

/** Node options as of `blockdev-add`, or as `json:` names them. */
export type NodeOptions = Record<string, unknown>

/** The layers with everything below them; `isWritable` counts for the top layer. */
export function layersNode([top, ...below]: ImageLayer[], isWritable = false): NodeOptions {
  if (!top) throw new Error('an image without layers')
  const node = layerNode(top, isWritable)
  if (top.format !== 'qcow2') return node
  return { ...node, backing: below.length > 0 ? layersNode(below) : null }
}

/** One layer without what lies below it, for checks. */
export function layerNode(layer: ImageLayer, isWritable = false): NodeOptions {
  const file = fileNode(layer.path, layer.isDevice, isWritable)
  const common = { file, ...access(isWritable) }
  if (layer.isPlain) {
    const plain = isWritable ? lockedNode(file, true) : file
    return { driver: 'raw', size: layer.sizeBytes, ...common, file: plain }
  }
  switch (layer.format) {
    case 'raw':
    case 'vdi':
    case 'vhdx':
      return { driver: layer.format, ...common }
    case 'vhd':
      return { driver: 'vpc', ...common }
    case 'vmdk':
      return { driver: 'vmdk', ...common, backing: null }
    case 'qcow2': {
      const [data] = layer.parts
      const dataFile = data === undefined ? {} : { 'data-file': fileNode(data, false, isWritable) }
      return { driver: 'qcow2', ...common, backing: null, ...dataFile }
    }
  }
}

export const fileNode = (path: string, isDevice: boolean, isWritable = false): NodeOptions => ({
  driver: isDevice ? 'host_device' : 'file',
  filename: path,
  ...access(isWritable),
})

/**
 * Plain bytes that are locked as a format of QEMU locks its file: raw shares all, and takes nothing
 * while nobody reads it. blkdebug takes the permissions that it is told to, and refuses them to others.
 */
export const lockedNode = (file: NodeOptions, isWritable = false): NodeOptions => ({
  driver: 'blkdebug',
  image: file,
  ...access(isWritable),
  'take-child-perms': isWritable ? ['consistent-read', 'write', 'resize'] : ['consistent-read'],
  'unshare-child-perms': ['write', 'resize'],
})

const access = (isWritable: boolean): NodeOptions =>
  isWritable ? { 'read-only': false, discard: 'unmap' } : { 'read-only': true }
