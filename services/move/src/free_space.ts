import { statfs } from 'node:fs/promises'
import { formatBytes } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { backup as catalog } from '@blockferry/proto'

/** Of the file system, below which no backup begins: what is left is for removing and collecting. */
const floorShare = 0.01
const floorBytesMax = 4 * 1024 ** 3
/** Below so many floors a backup says so. */
const warnedFloors = 3

/** Notes that a repository is nearly full. Errors: REPOSITORY_FULL below the floor. */
export async function checkFreeSpace(folder: string): Promise<catalog.DecisionNote[]> {
  const { bavail, blocks, bsize } = await statfs(folder)
  const freeBytes = bavail * bsize
  const floorBytes = Math.min(blocks * bsize * floorShare, floorBytesMax)
  const texts = [freeBytes, floorBytes].map(formatBytes)
  const [free = '', floor = ''] = texts
  if (freeBytes < floorBytes) {
    throw new BackupError(
      'REPOSITORY_FULL',
      `back up into ${folder}: its file system has ${free} free, less than the ${floor} that are kept for removing and collecting; remove backups and collect the repository, or make room`,
      { path: folder, free_bytes: String(freeBytes), floor_bytes: String(Math.ceil(floorBytes)) },
    )
  }
  if (freeBytes >= warnedFloors * floorBytes) return []
  const message = `the repository's file system has ${free} free; below ${floor} no backup begins`
  return [catalog.DecisionNote.create({ decision: 'REPOSITORY_NEARLY_FULL', message })]
}
