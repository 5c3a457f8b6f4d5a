import { execFile } from 'node:child_process'
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { recoveryKeyText } from './recovery_key.ts'
import { readSecretFile } from './secret_file.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp('/tmp/bf-secret-')
})
afterAll(async () => {
  await rm(folder, { recursive: true })
})

async function secretOf(content: string | Uint8Array, mode = 0o600) {
  const path = join(folder, 'secret')
  await rm(path, { force: true })
  await writeFile(path, content, { mode })
  await chmod(path, mode)
  return await readSecretFile(path)
}

describe('a file with a secret', () => {
  it.each([
    ['correct horse', 'correct horse'],
    ['correct horse\n', 'correct horse'],
    ['correct horse\r\nsecond line\n', 'correct horse'],
    [' spaces count ', ' spaces count '],
    ['pässwörter', 'pässwörter'],
  ])('holds a passphrase in its first line: %j', async (content, passphrase) => {
    expect(await secretOf(content)).toEqual({
      kind: 'passphrase',
      bytes: Buffer.from(passphrase),
    })
  })

  it('is refused when its bytes are no UTF-8', async () => {
    await expect(secretOf(Buffer.from('passw\xf6rter', 'latin1'))).rejects.toThrow('not UTF-8')
  })

  it('is the same passphrase with a byte order mark', async () => {
    const secret = await secretOf('\ufeffcorrect horse\r\n')
    expect(secret.bytes).toEqual(Buffer.from('correct horse'))
  })

  it('may hold a recovery key', async () => {
    const key = Buffer.alloc(32, 7)
    expect(await secretOf(`${recoveryKeyText(key)}\n`)).toEqual({ kind: 'key', bytes: key })
  })

  it.each([
    ['', 'first line has to be 8 to 1024 bytes'],
    ['\nlong enough on the second line', 'first line has to be 8'],
    ['short', 'first line has to be 8'],
    ['x'.repeat(1025), 'first line has to be 8'],
    ['x'.repeat(5000), 'more than 4096 bytes'],
    [recoveryKeyText(Buffer.alloc(32, 7)).slice(0, -1), 'is mistyped'],
  ])('is refused when it cannot be one: %.20j', async (content, says) => {
    const failure = await secretOf(content).catch((thrown) => thrown)
    expect(failure).toMatchObject({
      reason: 'ARGUMENT_INVALID',
      metadata: { field: 'passphrase_file' },
    })
    expect(failure.message).toContain(says)
    if (content.length > 2) expect(failure.message).not.toContain(content)
  })

  it('is refused when others can read it, and when it is no file', async () => {
    for (const mode of [0o640, 0o604, 0o644]) {
      await expect(secretOf('correct horse', mode)).rejects.toThrow('chmod it to 0600')
    }
    await mkdir(join(folder, 'folder'), { recursive: true })
    await expect(readSecretFile(join(folder, 'folder'))).rejects.toThrow('no regular file')
    await promisify(execFile)('mkfifo', ['-m', '600', join(folder, 'pipe')])
    await expect(readSecretFile(join(folder, 'pipe'))).rejects.toThrow('no regular file')
    await expect(readSecretFile(join(folder, 'missing'))).rejects.toThrow('ENOENT')
    await expect(readSecretFile('relative')).rejects.toThrow('absolute path')
  })
})
