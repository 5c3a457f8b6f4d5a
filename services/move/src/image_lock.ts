// QEMU's lock on an image that is replaced or written directly: it belongs to the open file, and
// ends when that is closed.
import { type FileHandle, open } from 'node:fs/promises'
import { BackupError } from '@blockferry/errors'
import { lockImage } from '@blockferry/native'
import { isSameFile } from './place_image.ts'
import { atTarget } from './target_failure.ts'

/**
 * Nobody else reads or writes the image, nor restores over it, until the file is closed. Errors:
 * TARGET_IN_USE, TARGET_DENIED, TARGET_WRITE_FAILED.
 */
export async function openLocked(path: string, flags: 'r' | 'r+'): Promise<FileHandle> {
  const file = await atTarget('open', path, () => open(path, flags))
  try {
    lockImage(file.fd, path)
    // Another restore may have swapped the image before it was locked.
    if (await isSameFile(path, `/proc/self/fd/${file.fd}`)) return file
    throw inUse(path, 'another process has just replaced it')
  } catch (thrown) {
    await file.close()
    throw thrown
  }
}

export const inUse = (path: string, cause: string): BackupError =>
  new BackupError(
    'TARGET_IN_USE',
    `restore over ${path}: ${cause}; power the VM off first, and wait for its backup`,
    { target: path, cause },
  )
