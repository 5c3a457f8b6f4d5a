// The mark beside an image that is half restored: `<image>.restore-incomplete`.
//
// A differential restore makes it durable before it changes the first byte, and removes it when the
// image is whole and durable. A file of that name counts, whatever is in it: its text is for people.
import { constants } from 'node:fs'
import { lstat, open, realpath } from 'node:fs/promises'

const suffix = '.restore-incomplete'
const textSizeMax = 64 * 1024

/** Where the mark of an image is. REQUIRES: `path` leads through no symbolic link. */
export const restoreMarkPath = (path: string): string => `${path}${suffix}`

/** What a mark says. Written as JSON, so that a person reads it, too. */
export interface RestoreMark {
  state: 'RESTORE_INCOMPLETE'
  meaning: string
  what_to_do: string
  image: string
  disk: string
  backup: string
  repository: string
  session: string
  begin_time: string
}

/** Why an image cannot be backed up: it is half restored. Null when it is not. */
export async function restoreIncomplete(
  path: string,
): Promise<{ reason: 'RESTORE_INCOMPLETE'; message: string } | null> {
  const image = await realpath(path).catch(() => path)
  const mark = restoreMarkPath(image)
  const marked = await lstat(mark).catch(() => null)
  if (!marked) return null
  const backup = await backupOf(mark)
  const restore = backup ? `of backup ${backup}` : `of the backup that ${mark} names`
  const message = `image ${image} is half restored: a restore ${restore} over it has not ended; run it again (${mark} says how), or restore another backup in place`
  return { reason: 'RESTORE_INCOMPLETE', message }
}

/** The backup that a mark names, as far as its text can be trusted to be ours. */
async function backupOf(mark: string): Promise<string | null> {
  try {
    // Not waited for when somebody put a pipe there.
    const file = await open(mark, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(textSizeMax), 0, textSizeMax, 0)
      const { backup } = JSON.parse(buffer.toString('utf8', 0, bytesRead)) as Partial<RestoreMark>
      return typeof backup === 'string' && /^[A-Za-z0-9_.-]{1,63}$/.test(backup) ? backup : null
    } finally {
      await file.close()
    }
  } catch {
    return null
  }
}
