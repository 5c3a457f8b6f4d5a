// Repositories that are not there, cannot be written, are full or come from the future.
import { execFile } from 'node:child_process'
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { backup } from '@blockferry/proto'
import { blake3 } from '@noble/hashes/blake3.js'
import { type Case, type Ground, isRoot, type Refusal, refusedBackup } from './ground.ts'

const execute = promisify(execFile)
const name = 'repositories/bad'

/** A second repository for as long as `work` takes. */
async function withRepository<T>(
  { lab }: Ground,
  folder: string,
  work: () => Promise<T>,
): Promise<T> {
  const { catalog } = lab.stand
  const request = { repositoryId: 'bad', folder, adopt: false, requestId: '', passphraseFile: '' }
  await catalog.createRepository(request)
  try {
    return await work()
  } finally {
    await catalog.deleteRepository({ name })
  }
}

const full = (ground: Ground) =>
  refusedBackup(ground, {
    vm: ground.lab.vmName,
    repository: name,
    level: backup.Level.FULL,
  })

/** A folder of its own, mounted by `mount`; everything is gone afterwards. */
async function atPlace<T>(
  { lab }: Ground,
  mount: ((place: string) => Promise<unknown>) | null,
  work: (place: string) => Promise<T>,
): Promise<T> {
  const place = join(lab.folder, 'bad')
  await mkdir(place)
  await mount?.(place)
  try {
    return await work(place)
  } finally {
    // The mover keeps the repository open that was used last.
    if (mount) await execute('umount', ['--lazy', place])
    await rm(place, { recursive: true })
  }
}

const missing = (ground: Ground) =>
  atPlace(ground, null, async (place) => {
    const folder = join(place, 'r')
    return await withRepository(ground, folder, async () => {
      await rename(folder, `${folder}-away`)
      return await full(ground)
    })
  })

const overflowing = async (ground: Ground): Promise<Refusal | null> => {
  if (!isRoot) return null
  const mount = (place: string) =>
    execute('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'blockferry-test', place])
  return await atPlace(ground, mount, (place) =>
    withRepository(ground, join(place, 'r'), () => full(ground)),
  )
}

const readOnly = async (ground: Ground): Promise<Refusal | null> => {
  if (!isRoot) return null
  const mount = (place: string) => execute('mount', ['--bind', place, place])
  return await atPlace(ground, mount, (place) =>
    withRepository(ground, join(place, 'r'), async () => {
      await execute('mount', ['-o', 'remount,bind,ro', place])
      try {
        return await full(ground)
      } finally {
        await execute('mount', ['-o', 'remount,bind,rw', place])
      }
    }),
  )
}

/** The version is at byte 8, the digest of the first 96 bytes follows them (repository format). */
async function raiseVersion(folder: string): Promise<void> {
  const file = await open(join(folder, 'repository'), 'r+')
  try {
    const bytes = Buffer.alloc(128)
    await file.read(bytes, 0, bytes.length, 0)
    bytes.writeUInt32LE(bytes.readUInt32LE(8) + 1, 8)
    bytes.set(blake3(bytes.subarray(0, 96)), 96)
    await file.write(bytes, 0, bytes.length, 0)
  } finally {
    await file.close()
  }
}

const tooNew = (ground: Ground) =>
  atPlace(ground, null, async (place) => {
    const folder = join(place, 'r')
    return await withRepository(ground, folder, async () => {
      await raiseVersion(folder)
      return await full(ground)
    })
  })

export const badRepositories: Case[] = [
  {
    name: 'repository missing',
    expects: { reason: 'REPOSITORY_MISSING', says: /\/bad\/r: there is none; check the path/ },
    work: missing,
  },
  {
    name: 'repository read-only',
    expects: {
      reason: 'REPOSITORY_READ_ONLY',
      says: /\/bad\/r.*mount the file system for writing/,
    },
    work: readOnly,
  },
  {
    name: 'repository full',
    expects: { reason: 'REPOSITORY_FULL', says: /\/bad\/r.*free space/ },
    work: overflowing,
  },
  {
    name: 'repository newer than the program',
    expects: { reason: 'REPOSITORY_TOO_NEW', says: /\/bad\/r.*upgrade/i },
    work: tooNew,
  },
]
