// The mark of an image that is half restored, as the mover writes and removes it; its place and
// meaning are the hypervisor library's, which refuses backups of such an image.
import { copyFile, lstat, open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { wallMs } from '@blockferry/core'
import { type RestoreMark, restoreMarkPath } from '@blockferry/hypervisor'
import { placeOver, removeFile, sync, type TakeBack } from './place_image.ts'
import { atTarget } from './target_failure.ts'

/** What a restore is, for the people who find its mark. */
export interface MarkedRestore {
  image: string
  disk: string
  backup: string
  repository: string
  session: string
}

export const isMarked = (image: string): Promise<boolean> =>
  lstat(restoreMarkPath(image)).then(
    () => true,
    () => false,
  )

/** Makes the mark durable, in the place of an older one. */
export async function writeMark(restore: MarkedRestore): Promise<void> {
  const path = restoreMarkPath(restore.image)
  const part = `${path}.new`
  await atTarget('prepare', part, () => removeFile(part))
  try {
    await writeText(part, textOf(restore))
    await atTarget('mark', restore.image, () => rename(part, path))
  } catch (thrown) {
    await removeFile(part).catch(() => {})
    throw thrown
  }
  await sync(dirname(path))
}

async function writeText(path: string, text: string): Promise<void> {
  const file = await atTarget('create', path, () => open(path, 'wx', 0o644))
  try {
    await atTarget('write', path, () => file.writeFile(text))
    await atTarget('make durable', path, () => file.sync())
  } finally {
    await file.close()
  }
}

/** Removes the mark, durably. REQUIRES: the image is whole and durable. */
export async function removeMark(image: string): Promise<void> {
  const path = restoreMarkPath(image)
  await atTarget('remove', path, () => removeFile(path))
  await sync(dirname(path))
}

/**
 * Places a whole new image where a half restored one may be. The mark goes with the old image to
 * the name it is kept by, and leaves the new one when that is in its place for good.
 */
export async function placeAndUnmark(
  path: string,
  kept: string | null,
  place: () => Promise<TakeBack>,
): Promise<TakeBack> {
  if (!(await isMarked(path))) return await place()
  const mark = restoreMarkPath(path)
  const keptMark = kept === null ? null : restoreMarkPath(kept)
  if (keptMark !== null) {
    await atTarget('mark', keptMark, () => copyFile(mark, keptMark))
    await sync(keptMark)
  }
  const takeBack = await place()
  await sync(dirname(path))
  await removeMark(path)
  return async () => {
    if (keptMark !== null) await atTarget('mark', path, () => rename(keptMark, mark))
    await takeBack()
  }
}

/** `placeOver` for an image that may be half restored. */
export const placeOverMarked = (part: string, path: string, kept: string): Promise<TakeBack> =>
  placeAndUnmark(path, kept, () => placeOver(part, path, kept))

function textOf({ image, disk, backup, repository, session }: MarkedRestore): string {
  const mark: RestoreMark = {
    state: 'RESTORE_INCOMPLETE',
    meaning:
      'This image is half restored: a restore that changes it in place was begun and has not ended. Do not start a machine from it, and do not copy it.',
    what_to_do: `Run \`blockferry restore ${backup} --in-place --differential --yes\` again; it goes on where it ended and removes this file. Any other restore in place does, too. When you have replaced the image by other means, remove this file.`,
    ...{ image, disk, backup, repository, session },
    begin_time: new Date(wallMs()).toISOString(),
  }
  return `${JSON.stringify(mark, null, 2)}\n`
}
