// tools/rescue is the second implementation of docs/repository-format.md, in another language: what
// it rebuilds is what the document says.
import { execFile } from 'node:child_process'
import { access, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { backUp, blockSize, kib, makeDisk, noise, run, withFolder, writeAt } from './fixture.ts'
import {
  addKeySlot,
  createRepository,
  openRepository,
  type Repository,
  type Secret,
} from './index.ts'

const script = fileURLToPath(new URL('../../tools/rescue/blockferry_rescue.py', import.meta.url))
const execute = promisify(execFile)
const rescue = (...args: string[]) => execute('python3', [script, ...args])

interface Failure {
  code: number
  stderr: string
}
const failureOf = (...args: string[]): Promise<Failure> =>
  rescue(...args).then(
    () => expect.unreachable('it succeeded'),
    (thrown: Failure) => thrown,
  )

const size = 12 * blockSize + 1000

/** A disk with blocks that shrink, that do not, that are zero, and a short last one, on two days. */
async function twoDays(
  folder: string,
  secret: Secret | null,
): Promise<{ repository: Repository; days: string[] }> {
  await createRepository(join(folder, 'repository'), secret)
  const repository = await openRepository(join(folder, 'repository'), false, secret)
  const source = join(folder, 'source')
  const text = Buffer.from('the same words again and again, '.repeat(4 * kib))
  await makeDisk(source, size, [
    [0, text],
    [4 * blockSize, noise('data', 3 * blockSize)],
    [size - 1000, noise('end', 1000)],
  ])
  const options = { source: { kind: 'raw', path: source }, size_bytes: size } as const
  const first = await backUp(repository, options)
  const days = [join(folder, 'day1'), join(folder, 'day2')]
  await run('cp', source, days[0] as string)
  await writeAt(source, 4 * blockSize + 5000, noise('one page', 10))
  await writeAt(source, 5 * blockSize - 10, noise('two blocks', 20))
  await writeAt(source, 9 * blockSize, noise('new', blockSize))
  const compression = { codec: 'zstd', level: 1 } as const
  await backUp(repository, { ...options, earlier: first.disk, compression })
  await run('cp', source, days[1] as string)
  return { repository, days }
}

async function withTwoDays(
  secret: Secret | null,
  use: (repository: string, days: string[], ids: string[]) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    const { repository, days } = await twoDays(folder, secret)
    const listed = await repository.listManifests(null)
    const ids = listed.map((one) => (one.kind === 'manifest' ? one.manifest.backup_id : ''))
    repository.close()
    await use(join(folder, 'repository'), days, ids)
  })
}

describe('the rescue script', () => {
  it('lists and rebuilds every backup, patches included, without anything of ours', async () => {
    await withTwoDays(null, async (repository, days, ids) => {
      const { stdout } = await rescue('list', repository)
      for (const id of ids) expect(stdout).toMatch(new RegExp(` ${id} +disk0 +${size}\n`))
      for (const [which, id] of ids.entries()) {
        for (const more of [[], ['--no-digest']]) {
          const out = join(repository, `../rescued-${which}${more.length}`)
          await rescue('restore', repository, id, 'disk0', out, ...more)
          await run('cmp', days[which] as string, out)
        }
      }
    })
  })

  it('opens an encrypted repository with a passphrase or the recovery key', async () => {
    // The bytes 0 to 31.
    const recoveryKey =
      'bfkey-000G-40R4-0M30-E209-185G-R38E-1W81-24GK-2GAH-C5RR-34D1-P70X-3RFG-CC6W'
    const key = Buffer.from(Array.from({ length: 32 }, (_, index) => index))
    const passphrase = { kind: 'passphrase', bytes: Buffer.from('correct horse') } as const
    await withTwoDays(passphrase, async (repository, days, ids) => {
      const [secretFile, wrongFile] = [join(repository, '../secret'), join(repository, '../wrong')]
      await writeFile(wrongFile, 'wrong horse\n')
      expect((await failureOf('list', repository)).stderr).toContain('is encrypted')
      const wrong = await failureOf('list', repository, '--secret-file', wrongFile)
      expect(wrong.stderr).toContain("opens none of the repository's key slots")
      await addKeySlot(repository, passphrase, { kind: 'key', bytes: key }, 'recovery')
      for (const [which, text] of ['correct horse', recoveryKey].entries()) {
        await writeFile(secretFile, `${text}\n`)
        const { stdout } = await rescue('list', repository, '--secret-file', secretFile)
        for (const id of ids) expect(stdout).toMatch(new RegExp(` ${id} +disk0 +${size}\n`))
        const out = join(repository, `../rescued-${which}`)
        const given = ['restore', repository, ids[1] ?? '', 'disk0', out]
        await rescue(...given, '--no-digest', '--secret-file', secretFile)
        await run('cmp', days[1] as string, out)
      }
    })
  })

  it('tells which backups are removed, and passes over those on their way out', async () => {
    await withFolder(async (folder) => {
      const { repository } = await twoDays(folder, null)
      const vm = repository.vmPseudonym('vm')
      const [first] = await repository.listManifests(vm)
      if (first?.kind !== 'manifest') throw new Error('it is not listed')
      await repository.removeBackup(vm, first.manifest.backup_id)
      repository.close()
      const list = async () => (await rescue('list', join(folder, 'repository'))).stdout
      expect((await list()).split('\n').filter((line) => line.endsWith('(removed)'))).toHaveLength(
        1,
      )
      const marked = join(folder, 'repository', 'manifests', vm)
      const mark = (await readdir(marked)).find((name) => name.endsWith('.removed')) ?? ''
      await rename(join(marked, mark), join(marked, mark.replace('.removed', '.dropped')))
      expect(await list()).not.toContain(` ${first.manifest.backup_id} `)
    })
  })

  it('says what it cannot read and leaves no half disk', async () => {
    await withTwoDays(null, async (repository, _, ids) => {
      const out = join(repository, '../out')
      const [id = ''] = ids
      expect(await failureOf('restore', repository, 'nobody', 'disk0', out)).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('there is no backup nobody'),
      })
      expect(await failureOf('restore', repository, id, 'disk9', out)).toMatchObject({
        stderr: expect.stringContaining('it has: disk0'),
      })
      // A byte of the block that did not shrink: found by its name alone.
      const stored = noise('data', 64)
      for (const folder of await readdir(join(repository, 'packs'))) {
        for (const name of await readdir(join(repository, 'packs', folder))) {
          const path = join(repository, 'packs', folder, name)
          const pack = await readFile(path)
          const at = pack.indexOf(stored)
          if (at < 0) continue
          pack[at] = (pack[at] ?? 0) ^ 1
          await writeFile(path, pack)
        }
      }
      expect(await failureOf('restore', repository, id, 'disk0', out)).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('its bytes do not have the digest that names them'),
      })
      await expect(access(out)).rejects.toThrow()
      expect((await failureOf('restore', repository)).code).toBe(2)
    })
  })
})
