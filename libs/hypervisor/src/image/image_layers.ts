// The files that an image consists of: the image, what lies below an overlay, and the other files
// that hold a layer's data. An image names them itself, and whoever made it could name any file of
// the host, so a name counts only as a plain path, and only inside the folder that bounds it.
import { realpath } from 'node:fs/promises'
import { dirname, relative, resolve, sep } from 'node:path'
import { ImageFile, NotAnImage } from './image_file.ts'
import type { ImageFormat, ImageProbe, Part, ReadableImage } from './image_format.ts'
import { probeImage } from './image_probe.ts'
import { probeSparseExtent } from './vmdk_header.ts'

export interface ImageLayer {
  path: string
  format: ImageFormat
  sizeBytes: number
  isDevice: boolean
  /** The layer is the first `sizeBytes` of the file: a VHD of fixed size. */
  isPlain: boolean
  /** Extents of a VMDK, or the data file of a qcow2. */
  parts: string[]
  /** Those of them that are sparse files, with tables of their own. */
  sparseParts: string[]
}

/** Why the files of an image are not all there, or not all allowed. */
export interface LayerProblem {
  kind: 'unsupported' | 'damaged' | 'missing' | 'denied'
  message: string
}

const backingDepthMax = 64

/** All files of the layers, each once; the image itself is the first. */
export const filesOf = (layers: ImageLayer[]): string[] => [
  ...new Set(layers.flatMap(({ path, parts }) => [path, ...parts])),
]

/**
 * Follows the names in an image, top layer first. Names lead nowhere outside of `root`; null bounds
 * only the parts of a VMDK, to its own folder.
 */
export async function findLayers(
  path: string,
  top: ReadableImage,
  root: string | null,
): Promise<ImageLayer[] | LayerProblem> {
  const layers: ImageLayer[] = []
  let at = { path, image: top }
  for (;;) {
    const layer = await findParts(at.path, at.image, root)
    if ('kind' in layer) return layer
    layers.push(layer)
    const { backing } = at.image
    if (!backing) return layers
    const below = await findNamed(backing.name, at.path, root, 'backing file')
    if (typeof below !== 'string') return below
    if (layers.some((other) => other.path === below) || layers.length > backingDepthMax) {
      const message = `backing files in a circle or deeper than ${backingDepthMax}`
      return { kind: 'unsupported', message }
    }
    const image = await probeBelow(below, backing.format, at.path)
    if (image.kind !== 'readable') return image
    at = { path: below, image }
  }
}

/** The format that the overlay names holds, as in QEMU: "raw" reads even a qcow2 as plain bytes. */
async function probeBelow(
  path: string,
  named: string | null,
  above: string,
): Promise<ReadableImage | LayerProblem> {
  if (named === 'raw') {
    const plain = await openPlain(path, above, 'backing file')
    if ('kind' in plain) return plain
    const { sizeBytes, isDevice } = plain
    return {
      kind: 'readable',
      format: 'raw',
      sizeBytes,
      isDevice,
      backing: null,
      parts: [],
      isPlain: false,
    }
  }
  let probe: ImageProbe
  try {
    probe = await probeImage(path)
  } catch (thrown) {
    return unreadable(path, above, 'backing file', thrown)
  }
  if (probe.kind !== 'readable') {
    return { kind: 'unsupported', message: `backing file ${path} with ${probe.problem}` }
  }
  if (named === null || (named === 'vpc' ? 'vhd' : named) === probe.format) return probe
  const message = `backing file ${path}, which it says is ${named}, but which is ${probe.format},`
  return { kind: 'unsupported', message }
}

async function findParts(
  path: string,
  image: ReadableImage,
  root: string | null,
): Promise<ImageLayer | LayerProblem> {
  const { format, sizeBytes, isDevice, isPlain } = image
  const parts: string[] = []
  const sparseParts: string[] = []
  for (const part of image.parts) {
    // VMware writes the extents beside their description, by name only.
    const bound = format === 'vmdk' ? dirname(path) : root
    const what = format === 'vmdk' ? 'extent' : 'data file'
    const found = await findNamed(part.name, path, bound, what)
    if (typeof found !== 'string') return found
    if (found === path || parts.includes(found)) {
      return { kind: 'unsupported', message: `${what} ${found} named twice` }
    }
    const problem = await checkPart(part, found, path, what)
    if (problem) return problem
    parts.push(found)
    if (part.holds === 'vmdk extent') sparseParts.push(found)
  }
  return { path, format, sizeBytes, isDevice, isPlain, parts, sparseParts }
}

/** QEMU reads zeroes behind the end of a part that is too short, and says nothing. */
async function checkPart(
  part: Part,
  path: string,
  above: string,
  what: string,
): Promise<LayerProblem | null> {
  const plain = await openPlain(path, above, what)
  if ('kind' in plain) return plain
  if (part.holds === 'plain') {
    if (plain.sizeBytes >= part.sizeBytes) return null
    return cutOff(what, path, `${part.sizeBytes} bytes`, `${plain.sizeBytes}`)
  }
  await using file = await ImageFile.open(path)
  const held = await probeSparseExtent(file)
  if (typeof held === 'string') {
    return { kind: 'damaged', message: `${what} ${path}: ${held}` }
  }
  return held === part.sizeBytes
    ? null
    : cutOff(what, path, `a part of ${part.sizeBytes} bytes`, `one of ${held}`)
}

const cutOff = (what: string, path: string, wanted: string, found: string): LayerProblem => ({
  kind: 'damaged',
  message: `${what} ${path} must hold ${wanted}, it holds ${found}`,
})

async function openPlain(
  path: string,
  above: string,
  what: string,
): Promise<{ sizeBytes: number; isDevice: boolean } | LayerProblem> {
  try {
    await using file = await ImageFile.open(path)
    return { sizeBytes: file.sizeBytes, isDevice: file.isDevice }
  } catch (thrown) {
    return unreadable(path, above, what, thrown)
  }
}

/** The path that a name inside `above` means, when it may be followed. */
async function findNamed(
  name: string,
  above: string,
  root: string | null,
  what: string,
): Promise<string | LayerProblem> {
  const plain = name.startsWith('file:') ? name.slice('file:'.length) : name
  // Whatever has a colon before its first slash is an address or a driver for QEMU: json:, nbd:, …
  if (plain === '' || plain.includes('\0') || /^[^/]*:/.test(plain)) {
    return {
      kind: 'unsupported',
      message: `${what} ${JSON.stringify(name)}, which is no path of a file,`,
    }
  }
  const path = resolve(dirname(above), plain)
  if (root === null) return path
  const outside: LayerProblem = {
    kind: 'unsupported',
    message: `${what} ${path}, which is outside of the host's folder ${root} (a folder host that holds both can read it),`,
  }
  if (what === 'extent') outside.message = `extent ${path}, which is not beside the image,`
  if (!isInside(path, root) || (what === 'extent' && dirname(path) !== root)) return outside
  // A link may lead out of the folder, too.
  const [really, bound] = await Promise.all(
    [path, root].map((one) => realpath(one).catch(() => null)),
  )
  return really == null || bound == null || isInside(really, bound) ? path : outside
}

function unreadable(path: string, above: string, what: string, thrown: unknown): LayerProblem {
  if (thrown instanceof NotAnImage) {
    return { kind: 'unsupported', message: `${what} ${path}: ${thrown.message}, which` }
  }
  const code = (thrown as NodeJS.ErrnoException).code ?? 'unreadable'
  const message = `open ${path}, ${what} of ${above}: ${code}; bring it back or rebase the overlay`
  return { kind: code === 'ENOENT' ? 'missing' : 'denied', message }
}

function isInside(path: string, root: string): boolean {
  const from = relative(root, path)
  return from !== '' && from !== '..' && !from.startsWith(`..${sep}`)
}
