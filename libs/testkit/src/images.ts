// Looking at disks with other people's programs, never with ours: what a test
// compares against must not come from the code it tests.
import { execFile } from 'node:child_process'
import { open } from 'node:fs/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)
const outputSizeMax = 1 << 26

/** Reads an NBD export into a new sparse raw file with nbdcopy. */
export async function copyExport(uri: string, path: string): Promise<void> {
  await run('nbdcopy', [uri, path], { maxBuffer: outputSizeMax })
}

/** Whether two images hold the same bytes; qemu-img reads both. */
export async function sameContent(
  first: { path: string; format: string },
  second: { path: string; format: string },
): Promise<boolean> {
  try {
    await run('qemu-img', [
      ...['compare', '-U', '-f', first.format, '-F', second.format],
      ...[first.path, second.path],
    ])
    return true
  } catch (thrown) {
    // 1: they differ; anything else is a failure of the comparison itself.
    if ((thrown as { code?: number }).code === 1) return false
    throw thrown
  }
}

/** e2fsck's word on a raw image with a file system: null when it is clean, else what it printed. */
export async function fileSystemDamage(path: string): Promise<string | null> {
  try {
    await run('/sbin/e2fsck', ['-fn', path], { maxBuffer: outputSizeMax })
    return null
  } catch (thrown) {
    const { stdout, stderr } = thrown as { stdout?: string; stderr?: string }
    return `${stdout ?? ''}${stderr ?? String(thrown)}`
  }
}

/** Flips every bit of the byte at `offset`; calling it again puts it right. */
export async function flipByte(path: string, offset: number): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const byte = Buffer.alloc(1)
    await file.read(byte, 0, 1, offset)
    byte.writeUInt8(byte.readUInt8(0) ^ 0xff)
    await file.write(byte, 0, 1, offset)
  } finally {
    await file.close()
  }
}

/** An extent of an NBD export, as nbdinfo shows it. */
export interface MapExtent {
  offset: number
  length: number
  type: number
}

/** The extents of a metadata context, read with nbdinfo. */
export async function extentsOf(uri: string, context: string): Promise<MapExtent[]> {
  const { stdout } = await run('nbdinfo', ['--json', `--map=${context}`, uri], {
    maxBuffer: outputSizeMax,
  })
  return JSON.parse(stdout)
}
