import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, it } from 'vitest'
import { blockSize, makeDisk, mib, noise, verify, withFolder } from './fixture.ts'
import { createRepository, openRepository, type Repository, type StoredDisk } from './index.ts'

const sessionCount = 1_000
/** Everything that is kept for good, caches and pools, is there after so many. */
const warmCount = 300
/** A buffer of one block that is lost in one session of seven is more. */
const growthBytesMax = 6 * mib

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

interface Held {
  descriptors: number
  threads: number
  memoryBytes: number
}

function held(): Held {
  collectGarbage()
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    memoryBytes: process.memoryUsage.rss(),
  }
}

/** One of the ends that a session can have. */
async function runSession(
  repository: Repository,
  source: string,
  number: number,
): Promise<StoredDisk | null> {
  const sizeBytes = 2 * mib
  const session = await repository.openSession({
    // A VM has few backups: a listing of all of them grows by itself.
    vm_pseudonym: repository.vmPseudonym(`vm-${Math.floor(number / 8)}`),
    point_id: `point-${number}`,
    incarnation: 1,
    number,
  })
  const task = session.moveDisk({
    disk_id: 'disk0',
    source: { kind: 'raw', path: number % 4 === 3 ? `${source}.gone` : source },
    size_bytes: sizeBytes,
    changed: { kind: 'all' },
    base: null,
    earlier: null,
    compression: number % 2 === 0 ? { codec: 'lz4', level: 0 } : { codec: 'zstd', level: 1 },
    stall_timeout_ms: 10_000,
  })
  if (number % 4 === 2) task.cancel()
  try {
    const { root } = await task.result
    const disk = { root, size_bytes: sizeBytes }
    await session.commit({
      backup_id: `b${number}`,
      base_backup_id: '',
      disks: [{ disk_id: 'disk0', ...disk }],
      body: new Uint8Array(),
      lock_seconds: 0,
    })
    return disk
  } catch {
    await session.abort()
    return null
  }
}

it('holds after 1,000 sessions what it held after 300', { timeout: 120_000 }, async () => {
  await withFolder(async (folder) => {
    await createRepository(join(folder, 'repository'), null)
    const repository = await openRepository(join(folder, 'repository'), false, null)
    const source = join(folder, 'source')
    await makeDisk(source, 2 * mib, [[5 * blockSize, noise('leak', 12 * blockSize)]])
    let warm = held()
    let backupCount = 0
    for (let number = 1; number <= sessionCount; number++) {
      const disk = await runSession(repository, source, number)
      if (disk) {
        backupCount++
        expect(await verify(repository, disk)).toEqual([])
      }
      if (number === warmCount) warm = held()
    }
    const now = held()
    expect(backupCount).toBeGreaterThanOrEqual(sessionCount / 2)
    expect(now.descriptors).toBe(warm.descriptors)
    expect(now.threads).toBe(warm.threads)
    expect(now.memoryBytes - warm.memoryBytes).toBeLessThan(growthBytesMax)
    console.log(`grew by ${Math.round((now.memoryBytes - warm.memoryBytes) / 1024)} KiB`)
    repository.close()
  })
})
