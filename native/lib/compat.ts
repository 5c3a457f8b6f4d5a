// Repositories that are kept as they were when their format was frozen: what every later version has
// to read. Only tests import it.
//
//   node --conditions=@blockferry/source native/lib/compat.ts tests/compat/v1
//
// makes them, once for each version of the format, and never again.
import { createHash } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { backUp, blockSize, kib, makeDisk, noise, run, withFolder, writeAt } from './fixture.ts'
import {
  addKeySlot,
  type Compression,
  createRepository,
  openRepository,
  type Repository,
  type Secret,
  type StoredDisk,
} from './index.ts'

export interface FrozenBackup {
  id: string
  size_bytes: number
  sha256: string
}

export interface FrozenRepository {
  name: string
  /** Its passphrase; empty for one in clear. */
  passphrase: string
  backups: FrozenBackup[]
}

export const passphraseOf = (text: string): Secret => ({
  kind: 'passphrase',
  bytes: Buffer.from(text),
})

const sizeBytes = 20 * blockSize + 1_000

/** Days of one disk: new blocks, patches of them, holes, a short last block, each codec once. */
async function writeDays(repository: Repository, folder: string): Promise<FrozenBackup[]> {
  const source = join(folder, 'disk')
  await makeDisk(source, sizeBytes, [
    [0, Buffer.from('the same words again and again, '.repeat(6 * kib))],
    [6 * blockSize, noise('data', 3 * blockSize)],
    [sizeBytes - 1_000, noise('end', 1_000)],
  ])
  const compressions: Compression[] = [
    { codec: 'lz4', level: 0 },
    { codec: 'zstd', level: 3 },
    { codec: 'stored', level: 0 },
    { codec: 'lz4', level: 0 },
  ]
  const backups: FrozenBackup[] = []
  let earlier: StoredDisk | null = null
  for (const [day, compression] of compressions.entries()) {
    if (day > 0) {
      await writeAt(source, (5 + day) * blockSize + 5_000, noise(`page of day ${day}`, 700))
      await writeAt(source, (13 + day) * blockSize, Buffer.alloc(blockSize, `day ${day}, `))
    }
    const options = { source: { kind: 'raw', path: source }, size_bytes: sizeBytes } as const
    const { disk } = await backUp(repository, { ...options, earlier, compression })
    earlier = disk
    const listed = await repository.listManifests(null)
    const newest = listed.at(-1)
    if (newest?.kind !== 'manifest') throw new Error('the backup is not listed')
    const sha256 = createHash('sha256')
      .update(await readFile(source))
      .digest('hex')
    backups.push({ id: newest.manifest.backup_id, size_bytes: sizeBytes, sha256 })
  }
  return backups
}

/** Removes the first two days and gives their space back, so that packs are written anew. */
async function collect(repository: Repository, backups: FrozenBackup[]): Promise<FrozenBackup[]> {
  const vm = repository.vmPseudonym('vm')
  for (const { id } of backups.slice(0, 2)) await repository.removeBackup(vm, id)
  const options = { incarnation: 1, number: 1_000, undo_window_seconds: 0 }
  await repository.collect({ ...options, dry_run: false, dead_sessions: [], bytes_per_second: 0 })
    .result
  await repository.holdBackup(vm, backups[2]?.id ?? '')
  await repository.removeBackup(vm, backups[3]?.id ?? '')
  return backups.slice(2)
}

async function freeze(target: string): Promise<void> {
  await mkdir(target)
  const frozen: FrozenRepository[] = []
  for (const [name, passphrase] of [
    ['plain', ''],
    ['encrypted', 'correct horse battery'],
    ['collected', ''],
  ] as const) {
    await withFolder(async (folder) => {
      const place = join(folder, name)
      const secret = passphrase === '' ? null : passphraseOf(passphrase)
      await createRepository(place, secret)
      if (secret) await addKeySlot(place, secret, { kind: 'key', bytes: noise('key', 32) }, 'other')
      const repository = await openRepository(place, false, secret)
      const days = await writeDays(repository, folder)
      const backups = name === 'collected' ? await collect(repository, days) : days
      repository.close()
      await run(
        'tar',
        '-C',
        folder,
        '--owner=0',
        '--group=0',
        '-czf',
        join(target, `${name}.tar.gz`),
        name,
      )
      frozen.push({ name, passphrase, backups })
    })
  }
  await writeFile(join(target, 'frozen.json'), `${JSON.stringify(frozen, null, 2)}\n`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await freeze(process.argv[2] ?? '')
