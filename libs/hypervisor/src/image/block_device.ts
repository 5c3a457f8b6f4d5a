// Block devices, LVM volumes among them, by what the kernel tells of them in /sys/dev/block.
import { constants } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { BackupError } from '@blockferry/errors'

const sectorBytes = 512
/** Fields of `stat`: sectors written and discarded. Flushes, ours too, count as writes of none. */
const writeFields = [6, 13]

/** Null when the kernel does not tell. */
export async function deviceBytes(rdev: bigint): Promise<number | null> {
  const text = await readFile(`${folderOf(rdev)}/size`, 'utf8').catch(() => '')
  return /^\d+\s*$/.test(text) ? Number(text) * sectorBytes : null
}

export interface DeviceState {
  sizeBytes: number
  /** What was written since the device came to be; equal texts mean that nothing was. */
  writes: string
}

/** Errors: HOST_DENIED, those of the file system, as they are. */
export async function readDevice(path: string, rdev: bigint): Promise<DeviceState> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    // What programs wrote may wait in memory, and counts only when the device has it.
    await file.sync()
  } finally {
    await file.close()
  }
  const folder = folderOf(rdev)
  await assertCounted(path, folder)
  const fields = (await readFile(`${folder}/stat`, 'utf8')).trim().split(/\s+/)
  // Another disk behind the same number, since Linux 5.15.
  const sequence = (await readFile(`${folder}/diskseq`, 'utf8').catch(() => '')).trim()
  const writes = [sequence, ...writeFields.map((index) => fields[index] ?? '')].join(' ')
  return { sizeBytes: (await deviceBytes(rdev)) ?? 0, writes }
}

/** The counts of a disk can be switched off; a partition's are those of its disk. */
async function assertCounted(path: string, folder: string): Promise<void> {
  for (const queue of [`${folder}/queue`, `${folder}/../queue`]) {
    const answer = await readFile(`${queue}/iostats`, 'utf8').catch(() => null)
    if (answer === null) continue
    if (answer.trim() !== '0') return
    throw new BackupError(
      'HOST_DENIED',
      `read device ${path}: the kernel does not count writes to it, so that a change would not be noticed; write 1 to ${queue}/iostats`,
      { path, cause: 'iostats' },
    )
  }
}

/**
 * Whether the device is mounted, or part of another device: the kernel holds those exclusively. Errors:
 * those of the file system, as they are.
 */
export async function isHeld(path: string): Promise<boolean> {
  try {
    const { O_RDONLY, O_EXCL, O_NONBLOCK } = constants
    await (await open(path, O_RDONLY | O_EXCL | O_NONBLOCK)).close()
    return false
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'EBUSY') return true
    throw thrown
  }
}

/** As glibc's gnu_dev_major and gnu_dev_minor take a device number apart. */
function folderOf(rdev: bigint): string {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n)
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n)
  return `/sys/dev/block/${major}:${minor}`
}
