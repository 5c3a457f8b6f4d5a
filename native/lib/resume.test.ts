import { spawn } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import {
  makeDisk,
  mib,
  noise,
  run,
  type Server,
  serveImage,
  serveNbdkit,
  withFolder,
} from './fixture.ts'
import { createRepository, type MoveDiskOptions, openRepository } from './index.ts'

const size = 192 * mib

// A mover of its own that tells how far it is, and never commits. It prints text: Node colours
// a number when FORCE_COLOR is set.
const mover = `
  import { openRepository } from ${JSON.stringify(fileURLToPath(new URL('./index.ts', import.meta.url)))}
  const [folder, point, options] = process.argv.slice(1)
  const repository = await openRepository(folder, false, null)
  const session = await repository.openSession({
    vm_pseudonym: repository.vmPseudonym('vm'), point_id: point, incarnation: 1, number: 1,
  })
  const task = session.moveDisk(JSON.parse(options))
  setInterval(() => console.log(String(task.progress().position_bytes)), 2)
  await task.result
`

const optionsFor = (server: Server): MoveDiskOptions => ({
  disk_id: 'disk0',
  size_bytes: size,
  source: { kind: 'nbd', uri: server.uri },
  changed: { kind: 'all' },
  base: null,
  earlier: null,
  compression: { codec: 'lz4', level: 0 },
  stall_timeout_ms: 10_000,
})

/** Runs a mover until the disk is moved up to `position`, then kills it. */
async function killAt(position: number, folder: string, point: string, options: MoveDiskOptions) {
  const child = spawn(
    process.execPath,
    [
      ...['--conditions=@blockferry/source', '--disable-warning=ExperimentalWarning'],
      ...['--input-type=module-typescript', '-e', mover, '--'],
      ...[folder, point, JSON.stringify(options)],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)))
  for await (const line of createInterface({ input: child.stdout })) {
    if (Number(line) >= position) break
  }
  child.kill('SIGKILL')
  expect(await ended).toBe('SIGKILL')
}

/** Bytes that clients of the server have read, as it counted them itself. */
async function bytesRead(statistics: string): Promise<number> {
  const text = await readFile(statistics, 'utf8')
  const [, amount, unit] = /^read: \d+ ops, [\d.]+ s, ([\d.]+) (\w+)/m.exec(text) ?? []
  const units: Record<string, number> = { bytes: 1, KiB: 1024, MiB: mib }
  return Number(amount) * (units[unit ?? ''] ?? Number.NaN)
}

const withDisk = (use: (folder: string, repository: string, disk: string) => Promise<void>) =>
  withFolder(async (folder) => {
    const repository = join(folder, 'repository')
    await createRepository(repository, null)
    const disk = join(folder, 'disk')
    await makeDisk(disk, size, [[0, noise('resume', size)]])
    await use(folder, repository, disk)
  })

const counted = (folder: string, disk: string) =>
  serveNbdkit(folder, ...['-r', '--filter=stats', 'file', disk, `statsfile=${folder}/statistics`])

describe('a mover that was killed', { timeout: 60_000 }, () => {
  it('goes on with the same point where the durable part ended', async () => {
    await withDisk(async (folder, path, disk) => {
      const first = await serveImage(folder, 'raw', disk, '-r')
      await killAt(size / 2, path, 'point', optionsFor(first)).finally(() => first.stop())

      const server = await counted(folder, disk)
      const repository = await openRepository(path, false, null)
      const session = await repository.openSession({
        vm_pseudonym: repository.vmPseudonym('vm'),
        point_id: 'point',
        incarnation: 1,
        number: 2,
      })
      const moved = await session.moveDisk(optionsFor(server)).result
      await server.stop()
      expect(moved.resumed_at_bytes).toBeGreaterThan(0)
      expect(moved.resumed_at_bytes).toBeLessThan(size)
      expect(moved.read_bytes).toBe(size)
      const second = await bytesRead(join(folder, 'statistics'))
      expect(second).toBeGreaterThan(size - moved.resumed_at_bytes - mib)
      expect(second).toBeLessThan(size - moved.resumed_at_bytes + mib)

      const committed = { disk_id: 'disk0', root: moved.root, size_bytes: size }
      await session.commit({
        backup_id: 'b',
        base_backup_id: '',
        disks: [committed],
        body: new Uint8Array(),
        lock_seconds: 0,
      })
      const target = join(folder, 'target')
      await repository.restoreDisk(committed, { kind: 'raw', path: target }).result
      await run('cmp', disk, target)
      const left = await readdir(join(path, 'sessions'), { recursive: true, withFileTypes: true })
      expect(left.filter((entry) => entry.isFile())).toEqual([])
      repository.close()
    })
  })

  it('starts empty with another point', async () => {
    await withDisk(async (folder, path, disk) => {
      const server = await serveImage(folder, 'raw', disk, '-r')
      try {
        await killAt(size / 2, path, 'point-1', optionsFor(server))
        const repository = await openRepository(path, false, null)
        const session = await repository.openSession({
          vm_pseudonym: repository.vmPseudonym('vm'),
          point_id: 'point-2',
          incarnation: 1,
          number: 2,
        })
        const moved = await session.moveDisk(optionsFor(server)).result
        expect(moved.resumed_at_bytes).toBe(0)
        expect(moved.read_bytes).toBe(size)
        // What the first mover made durable is only named.
        expect(moved.stored_bytes).toBeLessThan(size - 32 * mib)
        await session.abort()
        repository.close()
      } finally {
        await server.stop()
      }
    })
  })
})
