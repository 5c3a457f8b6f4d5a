// How a finished file gets its final name: in one step, so that whoever looks sees nothing or all
// of it, whenever we are killed.
//
// New place: link(part, name) fails when the name exists, then part is unlinked. Killed between the
// two, the complete image is there and part is a second name of it; the session that is started
// again takes both back.
//
// Replacing: link(name, kept) gives the old image its second name, then rename(part, name) swaps.
// Killed between the two, the name still shows the old image. There is no instant without an image.
import { chmod, chown, link, open, rename, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { atTarget } from './target_failure.ts'

const nameSizeMax = 255

/** `{prefix}{name}{suffix}` in the folder of `path`; a name too long for that is cut. */
export function besidePath(path: string, prefix: string, suffix: string): string {
  const room = nameSizeMax - Buffer.byteLength(prefix) - Buffer.byteLength(suffix)
  let name = basename(path)
  while (Buffer.byteLength(name) > room) name = [...name].slice(0, -1).join('')
  return join(dirname(path), `${prefix}${name}${suffix}`)
}

/** What undoes a placement. */
export type TakeBack = () => Promise<void>

/** Gives `part` its name; an existing file is never touched. Errors: TARGET_EXISTS. */
export async function placeNew(part: string, path: string): Promise<TakeBack> {
  await atTarget('create', path, () => linkNew(part, path))
  return () => removeFile(path)
}

/** Swaps `part` into the place of `path`, which is kept as `kept`. */
export async function placeOver(part: string, path: string, kept: string): Promise<TakeBack> {
  await atTarget('keep the image', path, () => keep(path, kept))
  await atTarget('replace', path, () => rename(part, path))
  return async () => {
    await atTarget('put back', path, () => rename(kept, path))
  }
}

/** Gives the new image the old one's owner and mode, so that its QEMU may open it. */
export async function takeOver(part: string, path: string): Promise<void> {
  const { uid, gid, mode } = await atTarget('read', path, () => stat(path))
  await atTarget('set the mode of', part, () => chmod(part, mode & 0o7777))
  // Only root may give files away; for everybody else old and new have the same owner anyway.
  await chown(part, uid, gid).catch(() => {})
}

export async function removeFile(path: string): Promise<void> {
  await unlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
}

export async function isSameFile(one: string, other: string): Promise<boolean> {
  const [a, b] = await Promise.all([one, other].map((path) => stat(path).catch(() => null)))
  return a != null && b != null && a.dev === b.dev && a.ino === b.ino
}

/** Makes a file or a folder's list of names durable. */
export async function sync(path: string): Promise<void> {
  const file = await atTarget('open', path, () => open(path, 'r'))
  try {
    await atTarget('make durable', path, () => file.sync())
  } finally {
    await file.close()
  }
}

async function linkNew(part: string, path: string): Promise<void> {
  try {
    await link(part, path)
  } catch (thrown) {
    if (!isWithoutLinks(thrown)) throw thrown
    // A file system without hard links: the exclusive create reserves the name.
    await (await open(path, 'wx', 0o600)).close()
    await rename(part, path)
  }
}

/** A kept image that is there already was kept by this session before it was killed. */
async function keep(path: string, kept: string): Promise<void> {
  try {
    await link(path, kept)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'EEXIST') return
    if (!isWithoutLinks(thrown)) throw thrown
    await rename(path, kept)
  }
}

const isWithoutLinks = (thrown: unknown): boolean =>
  ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EMLINK'].includes(
    (thrown as NodeJS.ErrnoException).code ?? '',
  )
