import { readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, it } from 'vitest'
import { blockSize, makeDisk, mib, noise, verify, withFolder } from './fixture.ts'
import { createRepository, openRepository, type Repository, type StoredDisk } from './index.ts'

const sessionCount = 1_000
/** Everything that is kept for good, caches and pools, is there after so many. */
const warmCount = 300
/** 480 KiB were measured; a block that is lost by one session of seven makes 3.6 MiB. */
const growthBytesMax = mib

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

const { heapBytes } = createRequire(import.meta.url)('../out/heap_probe.node') as {
  heapBytes: () => number
}

interface Held {
  descriptors: number
  threads: number
  heapBytes: number
}

async function held(): Promise<Held> {
  // What an object held natively is given back a moment after the object went.
  for (let round = 0; round < 3; round++) {
    collectGarbage()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    heapBytes: heapBytes(),
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
    let warm = await held()
    let backupCount = 0
    for (let number = 1; number <= sessionCount; number++) {
      const disk = await runSession(repository, source, number)
      if (disk) {
        backupCount++
        expect(await verify(repository, disk)).toEqual([])
      }
      if (number === warmCount) warm = await held()
    }
    const now = await held()
    expect(backupCount).toBeGreaterThanOrEqual(sessionCount / 2)
    expect(now.descriptors).toBe(warm.descriptors)
    expect(now.threads).toBe(warm.threads)
    expect(now.heapBytes - warm.heapBytes).toBeLessThan(growthBytesMax)
    console.log(`grew by ${Math.round((now.heapBytes - warm.heapBytes) / 1024)} KiB`)
    repository.close()
  })
})
