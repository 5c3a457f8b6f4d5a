import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { type FrozenRepository, passphraseOf } from './compat.ts'
import { backUp, run, verify, withFolder } from './fixture.ts'
import { checkStored, openRepository } from './index.ts'

const root = fileURLToPath(new URL('../../tests/compat', import.meta.url))
const script = fileURLToPath(new URL('../../tools/rescue/blockferry_rescue.py', import.meta.url))

const versions = readdirSync(root).filter((name) => /^v\d+$/.test(name))
const cases = versions.flatMap((version) => {
  const text = readFileSync(join(root, version, 'frozen.json'), 'utf8')
  return (JSON.parse(text) as FrozenRepository[]).map((frozen) => ({ version, ...frozen }))
})

const digestOf = async (path: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex')

describe('a repository from the day its format was frozen', () => {
  it.each(cases)(
    '$version, $name: is read, proven, restored, rescued and written on',
    async ({ version, name, passphrase, backups }) => {
      await withFolder(async (folder) => {
        await run('tar', '-C', folder, '-xzf', join(root, version, `${name}.tar.gz`))
        const place = join(folder, name)
        const report = await checkStored(place, 0).result
        expect(report.damages).toEqual([])
        const secret = passphrase === '' ? null : passphraseOf(passphrase)
        const secretFile = join(folder, 'secret')
        await writeFile(secretFile, `${passphrase}\n`)
        const repository = await openRepository(place, false, secret)
        const listed = await repository.listManifests(null)
        const manifests = listed.flatMap((each) => (each.kind === 'manifest' ? [each] : []))
        expect(manifests.map(({ manifest }) => manifest.backup_id)).toEqual(
          backups.map(({ id }) => id),
        )
        if (name === 'collected') {
          expect(manifests.map(({ held }) => held)).toEqual([true, false])
          expect(manifests[1]?.removed_seconds).not.toBeNull()
        }
        for (const { id, size_bytes, sha256 } of backups) {
          const found = manifests.find(({ manifest }) => manifest.backup_id === id)
          const disk = { root: found?.manifest.disks[0]?.root ?? null, size_bytes }
          expect(await verify(repository, disk)).toEqual([])
          const path = join(folder, `restored-${id}`)
          await repository.restoreDisk(disk, { kind: 'raw', path }).result
          expect(await digestOf(path)).toBe(sha256)
          const rescued = join(folder, `rescued-${id}`)
          const options = secret ? ['--secret-file', secretFile] : []
          await run('python3', script, 'restore', place, id, 'disk0', rescued, ...options)
          expect(await digestOf(rescued)).toBe(sha256)
        }
        const [last] = backups.slice(-1)
        const source = { kind: 'raw', path: join(folder, `restored-${last?.id}`) } as const
        const options = { source, size_bytes: last?.size_bytes ?? 0 }
        // A newer installation's.
        const { disk } = await backUp(repository, options, 2)
        const path = join(folder, 'restored-new')
        await repository.restoreDisk(disk, { kind: 'raw', path }).result
        expect(await digestOf(path)).toBe(last?.sha256)
        repository.close()
      })
    },
  )
})
