// The files of a VM's folder, and which of them look like images of disks. In sub-folders only
// images count: beside VirtualBox's snapshots lie logs and saved states.
import type { Dirent } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { probeImage } from '../image/image_probe.ts'

export interface FolderFile {
  /** Relative to the VM's folder. */
  name: string
  path: string
  sizeBytes: number
  isImage: boolean
}

/** A sub-folder that was not looked at. */
export interface FolderUnseen {
  name: string
  path: string
  cause: string
}

const diskExtensions = ['.raw', '.img', '.qcow2', '.vmdk', '.vhd', '.vhdx', '.vdi', '.qed']
// What a restore in place leaves beside an image: the one it replaced, and, while it works, the new
// one or the mark of a half restored one. None of them is a disk of the machine.
const restoreLeftover =
  /\.before-\d{8}-\d{6}-[0-9a-f]{6}$|^\..*\.part$|\.restore-incomplete(\.new)?$/
// VirtualBox keeps all snapshots of a machine in one folder, one level down.
const depthMax = 3
const countMax = 1_000

/** Files and block devices in the order of their names, links to them and links that lead nowhere. */
export async function filesIn(
  folder: string,
  entries: Dirent[],
  prefix = '',
): Promise<FolderFile[]> {
  const files: FolderFile[] = []
  for (const { name } of entries.toSorted(byName)) {
    if (restoreLeftover.test(name)) continue
    const path = join(folder, name)
    const found = await stat(path).catch(() => null)
    if (found && !found.isFile() && !found.isBlockDevice()) continue
    // What a device holds is its guest's, and says nothing about it.
    const isImage = found?.isBlockDevice() === true || (await looksLikeImage(path))
    files.push({ name: `${prefix}${name}`, path, sizeBytes: found?.size ?? 0, isImage })
  }
  return files
}

/** The images in sub-folders, nearest first. A link could lead to all that the host has. */
export async function imagesBelow(
  folder: string,
  entries: Dirent[],
): Promise<{ images: FolderFile[]; unseen: FolderUnseen[] }> {
  const images: FolderFile[] = []
  const unseen: FolderUnseen[] = []
  const queue = foldersIn(entries)
  let countLeft = countMax
  for (const { name, isLink } of queue) {
    const path = join(folder, name)
    if (isLink) {
      const linked = await stat(path).catch(() => null)
      if (linked?.isDirectory()) unseen.push({ name, path, cause: 'a link to another folder' })
      continue
    }
    if (name.split('/').length > depthMax) {
      unseen.push({ name, path, cause: `deeper than ${depthMax} levels` })
      continue
    }
    const found = await readdir(path, { withFileTypes: true }).catch(
      (thrown: NodeJS.ErrnoException) => thrown.code ?? 'unreadable',
    )
    if (typeof found === 'string') {
      unseen.push({ name, path, cause: found })
      continue
    }
    countLeft -= 1 + found.length
    if (countLeft < 0) {
      unseen.push({ name, path, cause: `more than ${countMax} files in sub-folders` })
      break
    }
    images.push(...(await filesIn(path, found, `${name}/`)).filter(({ isImage }) => isImage))
    queue.push(...foldersIn(found, `${name}/`))
  }
  return { images, unseen }
}

/** And links, which may lead to folders. */
const foldersIn = (entries: Dirent[], prefix = ''): { name: string; isLink: boolean }[] =>
  entries
    .filter((entry) => entry.isDirectory() || entry.isSymbolicLink())
    .toSorted(byName)
    .map((entry) => ({ name: `${prefix}${entry.name}`, isLink: entry.isSymbolicLink() }))

const byName = (one: Dirent, other: Dirent): number => (one.name < other.name ? -1 : 1)

async function looksLikeImage(path: string): Promise<boolean> {
  if (diskExtensions.includes(extname(path).toLowerCase())) return true
  const probe = await probeImage(path).catch(() => null)
  return probe !== null && !(probe.kind === 'readable' && probe.format === 'raw')
}
