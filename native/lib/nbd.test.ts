import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  backUp,
  blockSize,
  expectSame,
  makeDisk,
  mib,
  noise,
  run,
  type Server,
  serveImage,
  serveNbdkit,
  withFolder,
} from './fixture.ts'
import { createRepository, type MoveDiskOptions, openRepository, type Repository } from './index.ts'

const size = 16 * mib

/** A repository, a disk of noise, and a server of it. */
const withServer = (
  start: (folder: string, disk: string) => Promise<Server>,
  use: (repository: Repository, server: Server, folder: string) => Promise<void>,
) =>
  withFolder(async (folder) => {
    await createRepository(join(folder, 'repository'), null)
    const repository = await openRepository(join(folder, 'repository'), false, null)
    await makeDisk(join(folder, 'disk'), size, [[0, noise('nbd', size)]])
    const server = await start(folder, join(folder, 'disk'))
    try {
      await use(repository, server, folder)
    } finally {
      repository.close()
      await server.stop('SIGKILL').catch(() => undefined)
    }
  })

const move = (repository: Repository, server: Server, options: Partial<MoveDiskOptions> = {}) =>
  backUp(repository, {
    source: { kind: 'nbd', uri: server.uri },
    size_bytes: size,
    ...options,
  })

describe('an NBD source', () => {
  it.each(['data', 'noextents'])(
    'gives the same disk from nbdkit with filter %s',
    async (filter) => {
      await withServer(
        (folder, disk) =>
          filter === 'noextents'
            ? serveNbdkit(folder, '-r', '--filter=noextents', 'file', disk)
            : serveNbdkit(folder, '-r', 'file', disk),
        async (repository, server, folder) => {
          const { disk, moved } = await move(repository, server)
          expect(moved.read_bytes).toBe(size)
          const target = join(folder, 'target')
          await repository.restoreDisk(disk, { kind: 'raw', path: target }).result
          await run('cmp', join(folder, 'disk'), target)
        },
      )
    },
  )

  it('says where a read failed', async () => {
    await withServer(
      (folder, disk) =>
        serveNbdkit(
          folder,
          ...['-r', '--filter=error', 'file', disk, 'error-pread=EIO', 'error-pread-rate=100%'],
          `error-pread-file=${folder}/broken`,
        ),
      async (repository, server, folder) => {
        await move(repository, server)
        await writeFile(join(folder, 'broken'), '')
        const failure = await move(repository, server).catch((error) => error)
        expect(failure).toMatchObject({
          code: 'SOURCE_READ_FAILED',
          metadata: { offset_bytes: '0', uri: server.uri },
        })
        await rm(join(folder, 'broken'))
        await move(repository, server)
      },
    )
  })

  it('takes a failed extent request for a failure, not for unchanged', async () => {
    await withServer(
      (folder, disk) =>
        serveNbdkit(
          folder,
          ...[
            '-r',
            '--filter=error',
            'file',
            disk,
            'error-extents=EINVAL',
            'error-extents-rate=100%',
          ],
        ),
      async (repository, server) => {
        await expect(move(repository, server)).rejects.toMatchObject({
          code: 'SOURCE_READ_FAILED',
          message: expect.stringContaining('extents'),
        })
        expect(await repository.listManifests(null)).toEqual([])
      },
    )
  })

  it('gives up on a server that says nothing for the stall timeout', async () => {
    await withServer(
      (folder, disk) => serveNbdkit(folder, '-r', 'file', disk),
      async (repository, server) => {
        process.kill(server.pid, 'SIGSTOP')
        const began = performance.now()
        await expect(move(repository, server, { stall_timeout_ms: 300 })).rejects.toMatchObject({
          code: 'SOURCE_STALLED',
        })
        expect(performance.now() - began).toBeLessThan(3000)
      },
    )
  })

  it('says that the server is gone, before and in the middle', async () => {
    await withServer(
      (folder, disk) =>
        serveNbdkit(folder, '-r', '--filter=delay', 'file', disk, 'delay-read=20ms'),
      async (repository, server) => {
        const session = await repository.openSession({
          vm_pseudonym: repository.vmPseudonym('vm'),
          point_id: 'p',
          incarnation: 1,
          number: 1_000,
        })
        const task = session.moveDisk({
          disk_id: 'd',
          size_bytes: size,
          source: { kind: 'nbd', uri: server.uri },
          changed: { kind: 'all' },
          base: null,
          earlier: null,
          compression: { codec: 'lz4', level: 0 },
          stall_timeout_ms: 10_000,
        })
        await expect.poll(() => task.progress().read_bytes, { interval: 5 }).toBeGreaterThan(0)
        await server.stop('SIGKILL')
        await expect(task.result).rejects.toMatchObject({ code: 'SOURCE_UNREACHABLE' })
        await session.abort()
        await expect(move(repository, server)).rejects.toMatchObject({
          code: expect.stringMatching(/SOURCE_UNREACHABLE|RUN_FENCED/),
        })
      },
    )
  })

  it('refuses another size and a bitmap that is not offered', async () => {
    await withServer(
      (folder, disk) => serveImage(folder, 'raw', disk, '-r'),
      async (repository, server) => {
        await expect(move(repository, server, { size_bytes: size + 512 })).rejects.toMatchObject({
          code: 'DISK_SIZE_MISMATCH',
        })
        await expect(
          move(repository, server, {
            changed: { kind: 'bitmap', context: 'qemu:dirty-bitmap:none' },
            base: { root: null, size_bytes: size },
          }),
        ).rejects.toMatchObject({ code: 'CHANGED_BLOCKS_INVALID' })
      },
    )
  })

  it('stops within 200 ms when it is cancelled, also while the server is silent', async () => {
    await withServer(
      (folder, disk) => serveNbdkit(folder, '-r', 'file', disk),
      async (repository, server) => {
        const session = await repository.openSession({
          vm_pseudonym: repository.vmPseudonym('vm'),
          point_id: 'p',
          incarnation: 1,
          number: 1,
        })
        process.kill(server.pid, 'SIGSTOP')
        const task = session.moveDisk({
          disk_id: 'd',
          size_bytes: size,
          source: { kind: 'nbd', uri: server.uri },
          changed: { kind: 'all' },
          base: null,
          earlier: null,
          compression: { codec: 'lz4', level: 0 },
          stall_timeout_ms: 60_000,
        })
        const began = performance.now()
        task.cancel()
        await expect(task.result).rejects.toMatchObject({ code: 'CANCELLED' })
        // Twice the promise, for a loaded machine.
        expect(performance.now() - began).toBeLessThan(400)
        await session.abort()
      },
    )
  })
})

describe('an NBD target', () => {
  it('is a qcow2 image that holds the same bytes afterwards', async () => {
    await withServer(
      async (folder) => {
        const image = join(folder, 'image.qcow2')
        await run('qemu-img', 'create', '-q', '-f', 'qcow2', image, String(100 * mib))
        return serveImage(folder, 'qcow2', image, '--discard=unmap', '--detect-zeroes=unmap')
      },
      async (repository, server, folder) => {
        const { disk } = await backUp(repository, {
          source: { kind: 'raw', path: join(folder, 'disk') },
          size_bytes: size,
        })
        const done = await repository.restoreDisk(disk, { kind: 'nbd', uri: server.uri }).result
        expect(done.stored_bytes).toBe(size)
        expect(done.block_count).toBe(size / blockSize)
        await server.stop()
        await expectSame(join(folder, 'disk'), join(folder, 'image.qcow2'), ['raw', 'qcow2'])
      },
    )
  })

  it.each([
    ['full', 'TARGET_FULL', 'error-pwrite=ENOSPC'],
    ['failing', 'TARGET_WRITE_FAILED', 'error-pwrite=EIO'],
    ['denied', 'TARGET_DENIED', 'error-pwrite=EPERM'],
  ])('that is %s is %s', async (_, code, error) => {
    await withServer(
      (folder) =>
        serveNbdkit(
          folder,
          ...['--filter=error', 'memory', String(size), error, 'error-pwrite-rate=100%'],
        ),
      async (repository, server, folder) => {
        const { disk } = await backUp(repository, {
          source: { kind: 'raw', path: join(folder, 'disk') },
          size_bytes: size,
        })
        await expect(
          repository.restoreDisk(disk, { kind: 'nbd', uri: server.uri }).result,
        ).rejects.toMatchObject({ code })
      },
    )
  })

  it('has to be writable and large enough', async () => {
    await withServer(
      (folder) => serveNbdkit(folder, '-r', 'memory', String(size)),
      async (repository, server) => {
        const disk = { root: null, size_bytes: size }
        await expect(
          repository.restoreDisk(disk, { kind: 'nbd', uri: server.uri }).result,
        ).rejects.toMatchObject({ code: 'TARGET_DENIED' })
      },
    )
    await withServer(
      (folder) => serveNbdkit(folder, 'memory', String(size - 512)),
      async (repository, server) => {
        const disk = { root: null, size_bytes: size }
        await expect(
          repository.restoreDisk(disk, { kind: 'nbd', uri: server.uri }).result,
        ).rejects.toMatchObject({ code: 'TARGET_WRITE_FAILED' })
      },
    )
  })
})
