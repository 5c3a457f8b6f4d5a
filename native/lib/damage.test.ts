import { existsSync } from 'node:fs'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { zstdDecompressSync } from 'node:zlib'
import { blake3 } from '@noble/hashes/blake3.js'
import { uncompressSync } from 'lz4-napi'
import { describe, expect, it } from 'vitest'
import {
  type BackedUp,
  backUp,
  blockSize,
  makeDisk,
  mib,
  noise,
  verify,
  withFolder,
} from './fixture.ts'
import { type Compression, createRepository, openRepository, type Repository } from './index.ts'

// Half of it shrinks, half of it does not.
const content = (): Buffer => {
  const bytes = noise('damage', 8 * mib)
  const text = Buffer.from('the same line over and over\n')
  for (let at = 4 * mib; at < bytes.length; at += blockSize) {
    for (let i = 0; i < blockSize - 100; i += text.length) text.copy(bytes, at + i)
  }
  return bytes
}

const withBackup = (
  use: (repository: Repository, stored: BackedUp, folder: string) => Promise<void>,
  compression: Compression = { codec: 'lz4', level: 0 },
) =>
  withFolder(async (folder) => {
    await createRepository(join(folder, 'repository'), null)
    const repository = await openRepository(join(folder, 'repository'), false, null)
    const source = join(folder, 'source')
    await makeDisk(source, 8 * mib, [[0, content()]])
    const stored = await backUp(repository, {
      source: { kind: 'raw', path: source },
      size_bytes: 8 * mib,
      compression,
    })
    try {
      await use(repository, stored, folder)
    } finally {
      repository.close()
    }
  })

async function packsOf(folder: string): Promise<string[]> {
  const packs = join(folder, 'repository', 'packs')
  const names = await readdir(packs, { recursive: true })
  return names.filter((name) => name.endsWith('.pack')).map((name) => join(packs, name))
}

// Parsed by hand from docs/repository-format.md, without any of our code.
interface PackRecord {
  type: number
  codec: number
  plainSize: number
  name: string
  stored: Buffer
  storedAt: number
}

function recordsOf(pack: Buffer): PackRecord[] {
  const footer = pack.subarray(pack.length - 64)
  expect(footer.subarray(56).toString('latin1')).toBe('BFPKEND\n')
  const tableOffset = Number(footer.readBigUInt64LE(0))
  const count = footer.readUInt32LE(8)
  return Array.from({ length: count }, (_, i) => {
    const entry = pack.subarray(tableOffset + i * 48, tableOffset + (i + 1) * 48)
    const offset = entry.readUInt32LE(32)
    const storedSize = entry.readUInt32LE(40)
    const storedAt = offset + 80
    return {
      type: entry.readUInt8(44),
      codec: entry.readUInt8(45),
      plainSize: entry.readUInt32LE(36),
      name: entry.subarray(0, 32).toString('hex'),
      stored: pack.subarray(storedAt, storedAt + storedSize),
      storedAt,
    }
  })
}

describe('what is stored', () => {
  const readByLz4Napi = (stored: Buffer, plainSize: number): Buffer => {
    const prefix = Buffer.alloc(4)
    prefix.writeUInt32LE(plainSize)
    return uncompressSync(Buffer.concat([prefix, stored]))
  }

  it('is read by independent programs: LZ4 by lz4-napi, names by @noble/hashes', async () => {
    await expectReadable({ codec: 'lz4', level: 0 }, 1, readByLz4Napi)
  })

  it('is read by independent programs: zstd by Node', async () => {
    await expectReadable({ codec: 'zstd', level: 3 }, 2, (stored) => zstdDecompressSync(stored))
  })

  async function expectReadable(
    compression: Compression,
    code: number,
    decode: (stored: Buffer, plainSize: number) => Buffer,
  ): Promise<void> {
    await withBackup(async (_repository, _stored, folder) => {
      const header = await readFile(join(folder, 'repository', 'repository'))
      const namingKey = header.subarray(32, 64)
      const chunkKey = blake3(namingKey, { context: Buffer.from('Blockferry v1 chunk name') })
      const [pack = ''] = await packsOf(folder)
      const chunks = recordsOf(await readFile(pack)).filter(({ type }) => type === 1)
      expect(chunks).toHaveLength(128)
      expect(chunks.filter(({ codec }) => codec === code)).toHaveLength(64)
      const known = new Set<string>()
      for (const { codec, plainSize, stored, name } of chunks) {
        const plain = codec === code ? decode(stored, plainSize) : stored
        expect(plain.length).toBe(blockSize)
        expect(Buffer.from(blake3(plain, { key: chunkKey })).toString('hex')).toBe(name)
        known.add(plain.toString('latin1'))
      }
      const disk = content()
      for (let at = 0; at < disk.length; at += blockSize) {
        expect(known.has(disk.toString('latin1', at, at + blockSize))).toBe(true)
      }
    }, compression)
  }
})

describe('a damaged repository', () => {
  it('is noticed by restore and verify, and no target is left', async () => {
    await withBackup(async (repository, { disk }, folder) => {
      const [pack = ''] = await packsOf(folder)
      const bytes = await readFile(pack)
      const chunks = recordsOf(bytes).filter(({ type }) => type === 1)
      const { storedAt = 0 } = chunks[100] ?? {}
      bytes.writeUInt8(bytes.readUInt8(storedAt + 50) ^ 1, storedAt + 50)
      await writeFile(pack, bytes)
      const target = join(folder, 'target')
      await expect(
        repository.restoreDisk(disk, { kind: 'raw', path: target }).result,
      ).rejects.toMatchObject({ code: 'BLOCK_CORRUPT' })
      expect(existsSync(target)).toBe(false)
      expect(await verify(repository, disk)).toMatchObject([
        { size_bytes: blockSize, reason: 'BLOCK_CORRUPT' },
      ])
    })
  })

  it.each(['chunk', 'map node'])(
    'is healed by the next full backup: a damaged %s',
    async (kind) => {
      await withBackup(async (repository, { disk }, folder) => {
        const [pack = ''] = await packsOf(folder)
        const bytes = await readFile(pack)
        const wanted = recordsOf(bytes).filter(({ type }) => type === (kind === 'chunk' ? 1 : 2))
        const { storedAt = 0 } = wanted[0] ?? {}
        bytes.writeUInt8(bytes.readUInt8(storedAt + 5) ^ 128, storedAt + 5)
        await writeFile(pack, bytes)
        expect(await verify(repository, disk)).toMatchObject([{ reason: 'BLOCK_CORRUPT' }])
        const again = await backUp(repository, {
          source: { kind: 'raw', path: join(folder, 'source') },
          size_bytes: 8 * mib,
        })
        expect(again.disk.root).toBe(disk.root)
        expect(await verify(repository, again.disk)).toEqual([])
      })
    },
  )

  it('without a pack is CHUNK_MISSING, and no target is left', async () => {
    await withBackup(async (repository, { disk }, folder) => {
      for (const pack of await packsOf(folder)) await rm(pack)
      const target = join(folder, 'target')
      await expect(
        repository.restoreDisk(disk, { kind: 'raw', path: target }).result,
      ).rejects.toMatchObject({ code: 'CHUNK_MISSING' })
      expect(existsSync(target)).toBe(false)
    })
  })
})

describe('a raw target', () => {
  it('is never overwritten', async () => {
    await withBackup(async (repository, { disk }, folder) => {
      const target = join(folder, 'target')
      await writeFile(target, 'precious')
      await expect(
        repository.restoreDisk(disk, { kind: 'raw', path: target }).result,
      ).rejects.toMatchObject({ code: 'TARGET_EXISTS' })
      expect(await readFile(target, 'utf8')).toBe('precious')
    })
  })

  it('is removed when the restore is cancelled', async () => {
    await withBackup(async (repository, { disk }, folder) => {
      const target = join(folder, 'target')
      const task = repository.restoreDisk(disk, { kind: 'raw', path: target })
      task.cancel()
      await expect(task.result).rejects.toMatchObject({ code: 'CANCELLED' })
      expect(existsSync(target)).toBe(false)
    })
  })
})
