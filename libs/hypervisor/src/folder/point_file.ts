// What a point of a machine that is off leaves on disk, one file per VM in the run folder:
// the lock (it is created exclusively), what was promised about the images, and whether a stopped
// machine still has to be started. A later process of ours reads it after a crash.
import { createHash } from 'node:crypto'
import { link, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { randomHex } from '@blockferry/core'
import type { Point } from '../driver.ts'
import type { ImageState } from './image_state.ts'
import type { Hook } from './vm_file.ts'

export interface PointFile {
  pointId: string
  /** Installation that made it. */
  tag: string
  vmIdentity: string
  vmName: string
  /** Written before the stop hook runs, so that the machine is started whatever happens then. */
  start: Hook | null
  /** How a release tidies the bitmaps of the images, or null when there are none. */
  bitmaps: { repositoryId: string; keptPointIds: string[] } | null
  /** Empty until the point began. */
  states: ImageState[]
  /** Null until the point began. */
  point: Point | null
}

const suffix = '.point.json'

/** Takes the VM. Answers the file of whoever has it, or null when it is ours now. */
export async function claimPointFile(folder: string, mine: PointFile): Promise<PointFile | null> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const path = pathOf(folder, mine.vmIdentity)
  const draft = await writeDraft(folder, mine)
  try {
    // A link, unlike a rename, fails when the name is taken, and the file is whole at once.
    await link(draft, path)
    return null
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown
    return (await readPointFile(path)) ?? mine
  } finally {
    await rm(draft, { force: true })
  }
}

export async function replacePointFile(folder: string, file: PointFile): Promise<void> {
  await rename(await writeDraft(folder, file), pathOf(folder, file.vmIdentity))
}

export async function removePointFile(folder: string, vmIdentity: string): Promise<void> {
  await rm(pathOf(folder, vmIdentity), { force: true })
}

export async function listPointFiles(folder: string): Promise<PointFile[]> {
  const names = await readdir(folder).catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === 'ENOENT') return []
    throw thrown
  })
  const files: PointFile[] = []
  for (const name of names.filter((one) => one.endsWith(suffix))) {
    const file = await readPointFile(join(folder, name))
    if (file) files.push(file)
  }
  return files
}

async function readPointFile(path: string): Promise<PointFile | null> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as PointFile
  } catch (thrown) {
    // Released between the listing and the reading. It is never half written: see claimPointFile.
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw new Error(`point file ${basename(path)} is not JSON`, { cause: thrown })
  }
}

async function writeDraft(folder: string, file: PointFile): Promise<string> {
  const draft = join(folder, `.${randomHex(8)}.draft`)
  await writeFile(draft, JSON.stringify(file), { mode: 0o600, flush: true })
  return draft
}

function pathOf(folder: string, vmIdentity: string): string {
  // Identities may hold slashes and newlines or be too long for a file name.
  const digest = createHash('sha256').update(vmIdentity).digest('hex')
  return join(folder, `${digest.slice(0, 32)}${suffix}`)
}
