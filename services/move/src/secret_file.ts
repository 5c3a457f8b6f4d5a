// Secrets come in files, never in arguments, messages or logs. No error here says anything of one but
// where it was to be read.
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { argumentInvalid } from '@blockferry/errors'
import type { Secret } from '@blockferry/native'
import { parseRecoveryKey } from './recovery_key.ts'

const fileSizeMax = 4096
const passphraseSizeMin = 8
const passphraseSizeMax = 1024

/**
 * The secret in the first line of a file of ours: a recovery key, or else a passphrase.
 * Errors: ARGUMENT_INVALID, which names the file.
 */
export async function readSecretFile(path: string): Promise<Secret> {
  const unfit = (advice: string) => argumentInvalid('passphrase_file', path, advice)
  if (!path.startsWith('/') || path.includes('\0')) throw unfit('give an absolute path')
  const text = await readSmallFile(path, unfit)
  const line = (text.split('\n', 1)[0] ?? '').replace(/\r+$/, '')
  const key = parseRecoveryKey(line)
  if (key === 'mistyped')
    throw unfit('the recovery key in it is mistyped: its checksum does not fit')
  if (key) return { kind: 'key', bytes: key }
  const bytes = Buffer.from(line, 'utf8')
  if (bytes.length < passphraseSizeMin || bytes.length > passphraseSizeMax) {
    throw unfit(`its first line has to be ${passphraseSizeMin} to ${passphraseSizeMax} bytes long`)
  }
  return { kind: 'passphrase', bytes }
}

async function readSmallFile(path: string, unfit: (advice: string) => Error): Promise<string> {
  let file: Awaited<ReturnType<typeof open>>
  try {
    // A pipe that nobody writes to must not keep a thread.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (thrown) {
    throw unfit(`it cannot be read by the mover: ${(thrown as NodeJS.ErrnoException).code}`)
  }
  try {
    const stat = await file.stat()
    if (!stat.isFile()) throw unfit('it is no regular file')
    if ((stat.mode & 0o077) !== 0) throw unfit('others can read it; chmod it to 0600')
    if (stat.size > fileSizeMax) throw unfit(`it has more than ${fileSizeMax} bytes`)
    return textOf(await file.readFile(), unfit)
  } finally {
    await file.close()
  }
}

/** Bytes that are no UTF-8 would become others, which nobody else derives the same key from. */
function textOf(bytes: Uint8Array, unfit: (advice: string) => Error): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw unfit('it is not UTF-8')
  }
}
