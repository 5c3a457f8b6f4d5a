// The installation's tag marks everything that a point creates. It is drawn once and
// kept in the state folder: with another tag our own leftovers would look like somebody else's.
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { randomHex } from '@blockferry/core'

/** Six hex digits, the same for every start in this state folder. */
export async function installationTag(stateFolder: string): Promise<string> {
  await mkdir(stateFolder, { recursive: true, mode: 0o700 })
  const path = join(stateFolder, 'installation.json')
  const draft = `${path}.${randomHex(4)}`
  await writeFile(draft, `${JSON.stringify({ tag: randomHex(3) })}\n`, { mode: 0o600, flush: true })
  try {
    // A link fails when the file exists, so of two first starts at once one tag wins.
    await link(draft, path)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown
  } finally {
    await rm(draft)
  }
  const { tag } = JSON.parse(await readFile(path, 'utf8')) as { tag: string }
  if (!/^[0-9a-f]{6}$/.test(tag)) throw new Error(`${path} holds no tag of six hex digits`)
  return tag
}
