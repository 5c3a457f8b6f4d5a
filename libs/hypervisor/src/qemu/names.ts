// Everything a point creates carries the installation's tag and the point's id in
// its name, so that a later process finds and removes all of it by asking QEMU:
//
//   bf.<tag>.<point>.c0   copy-before-write filter of the first disk
//   bf.<tag>.<point>.f0   its fleece store: node and file
//   bf.<tag>.<point>.s0   the node that shows the point
//   bf.<tag>.<point>.e0   the NBD export of it
//
// QEMU allows 31 characters in a node's name.

const shape = /^bf\.([0-9a-f]{6})\.([0-9a-f]{12})\.(.+)$/

export interface TaggedName {
  tag: string
  pointId: string
  /** What it is: c0, f0, s0, e0; for files also sock, point, hold. */
  part: string
}

export const taggedName = (tag: string, pointId: string, part: string): string =>
  `bf.${tag}.${pointId}.${part}`

/** The parts of a name of ours or of another installation, or null for any other name. */
export function parseTaggedName(name: string): TaggedName | null {
  const [, tag, pointId, part] = shape.exec(name) ?? []
  return tag && pointId && part ? { tag, pointId, part } : null
}
