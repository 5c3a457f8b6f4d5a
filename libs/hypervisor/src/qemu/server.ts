// The NBD server inside QEMU. There is one per QEMU and no way to ask whose it is, so
// a leftover of ours is known by the socket file that the QEMU process listens on.
import { readdir, readFile, readlink, realpath } from 'node:fs/promises'

/** The socket files below `folder` on which the process listens. */
export async function socketsServedBy(pid: number, folder: string): Promise<string[]> {
  const real = await realpath(folder).catch(() => folder)
  const isBelow = (path: string) => path.startsWith(`${folder}/`) || path.startsWith(`${real}/`)
  return (await socketsHeldBy(pid, isBelow)) ?? []
}

/** The named sockets of the process whose path `isWanted`; null when its files cannot be seen. */
export async function socketsHeldBy(
  pid: number,
  isWanted: (path: string) => boolean,
): Promise<string[] | null> {
  // Its own table: it may live in another network namespace.
  const table = await readFile(`/proc/${pid}/net/unix`, 'utf8').catch(() => '')
  const pathOfInode = new Map<string, string>()
  for (const line of table.split('\n')) {
    const fields = line.trim().split(/\s+/)
    const [inode, path] = [fields[6], fields[7]]
    if (inode && path && isWanted(path)) pathOfInode.set(inode, path)
  }
  const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => null)
  if (descriptors === null) return null
  if (pathOfInode.size === 0) return []
  const held = await Promise.all(
    descriptors.map(async (descriptor) => {
      const link = await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => '')
      return pathOfInode.get(/^socket:\[(\d+)\]$/.exec(link)?.[1] ?? '')
    }),
  )
  return held.filter((path) => path !== undefined)
}

/** Whether any process listens on the socket file; asking the kernel does not disturb it. */
export async function isListened(socketPath: string): Promise<boolean> {
  const table = await readFile('/proc/net/unix', 'utf8').catch(() => '')
  return table.split('\n').some((line) => {
    const [, , , flags, , , , path] = line.trim().split(/\s+/)
    return path === socketPath && flags === acceptsConnections
  })
}

const acceptsConnections = '00010000'
