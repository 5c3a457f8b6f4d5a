import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  backUp,
  blockSize,
  expectSame,
  gib,
  kib,
  makeDisk,
  mib,
  noise,
  run,
  serveImage,
  tib,
  verify,
  withFolder,
  writeAt,
} from './fixture.ts'
import { createRepository, openRepository, type Repository } from './index.ts'

const withRepository = (use: (repository: Repository, folder: string) => Promise<void>) =>
  withFolder(async (folder) => {
    await createRepository(join(folder, 'repository'), null)
    const repository = await openRepository(join(folder, 'repository'), false, null)
    try {
      await use(repository, folder)
    } finally {
      repository.close()
    }
  })

describe('a full backup', () => {
  const disks: [string, number, [number, Uint8Array][]][] = [
    ['no bytes', 0, []],
    ['1 MiB + 512 B', mib + 512, [[0, noise('odd', mib + 512)]]],
    ['one byte', 1, [[0, noise('one', 1)]]],
    ['holes only', 5 * mib, []],
    [
      '10 GiB, sparse',
      10 * gib,
      [
        [0, noise('head', 3 * mib)],
        [5 * gib + 12345, noise('middle', 200 * kib)],
        [10 * gib - 70 * kib, noise('tail', 70 * kib)],
      ],
    ],
    [
      '2 TiB, sparse',
      2 * tib,
      [
        [mib, noise('head', mib)],
        [tib, noise('middle', mib)],
        [2 * tib - 512, noise('tail', 512)],
      ],
    ],
  ]
  it.each(disks)(
    'restores a disk of %s byte for byte',
    { timeout: 60_000 },
    async (_, size, pieces) => {
      await withRepository(async (repository, folder) => {
        const source = join(folder, 'source')
        await makeDisk(source, size, pieces)
        const { moved, disk } = await backUp(repository, {
          source: { kind: 'raw', path: source },
          size_bytes: size,
        })
        expect(moved.position_bytes).toBe(size)
        expect(moved.resumed_at_bytes).toBe(0)
        expect(moved.root === null).toBe(pieces.length === 0)
        expect(await verify(repository, disk)).toEqual([])
        const target = join(folder, 'target')
        await repository.restoreDisk(disk, { kind: 'raw', path: target }).result
        expect((await stat(target)).size).toBe(size)
        await expectSame(source, target)
        // Holes stay holes.
        expect((await stat(target)).blocks * 512).toBeLessThan(8 * mib)
      })
    },
  )

  it('moves 2 TiB of a sparse qcow2 over NBD into a raw file', { timeout: 60_000 }, async () => {
    await withRepository(async (repository, folder) => {
      const image = join(folder, 'image.qcow2')
      await run('qemu-img', 'create', '-q', '-f', 'qcow2', image, String(2 * tib))
      await run('qemu-io', '-c', `write -P 7 ${tib} 1M`, '-c', 'write -P 9 70000 3000', image)
      const server = await serveImage(folder, 'qcow2', image, '-r')
      const { moved, disk } = await backUp(repository, {
        source: { kind: 'nbd', uri: server.uri },
        size_bytes: 2 * tib,
      }).finally(() => server.stop())
      expect(moved.read_bytes).toBeLessThan(2 * mib)
      const target = join(folder, 'target')
      await repository.restoreDisk(disk, { kind: 'raw', path: target }).result
      await expectSame(image, target, ['qcow2', 'raw'])
    })
  })

  it('stores a block of zeroes as a hole and a repeated block once', async () => {
    await withRepository(async (repository, folder) => {
      const source = join(folder, 'source')
      const block = noise('block', blockSize)
      await makeDisk(source, 64 * blockSize, [
        [0, Buffer.alloc(32 * blockSize)],
        [40 * blockSize, Buffer.concat(Array(16).fill(block))],
      ])
      const { moved } = await backUp(repository, {
        source: { kind: 'raw', path: source },
        size_bytes: 64 * blockSize,
      })
      expect(moved.read_bytes).toBe(48 * blockSize)
      expect(moved.allocated_bytes).toBe(48 * blockSize)
      expect(moved.block_count).toBe(1)
      expect(repository.info().chunk_count).toBe(1)
    })
  })

  it('stores nothing but the map of a disk that the repository knows', async () => {
    await withRepository(async (repository, folder) => {
      const source = join(folder, 'source')
      await makeDisk(source, 8 * mib, [[0, noise('same', 8 * mib)]])
      const options = { source: { kind: 'raw', path: source }, size_bytes: 8 * mib } as const
      const first = await backUp(repository, options)
      const second = await backUp(repository, options)
      expect(second.disk.root).toBe(first.disk.root)
      expect(second.moved.read_bytes).toBe(8 * mib)
      expect(second.moved.block_count).toBe(0)
      expect(second.moved.stored_bytes).toBe(0)
    })
  })

  it('moves two disks of one session at once', async () => {
    await withRepository(async (repository, folder) => {
      const paths = [join(folder, 'one'), join(folder, 'two')]
      for (const path of paths) await makeDisk(path, 20 * mib, [[0, noise(path, 20 * mib)]])
      const session = await repository.openSession({
        vm_pseudonym: repository.vmPseudonym('vm'),
        point_id: 'p',
        incarnation: 1,
        number: 1,
      })
      const moved = await Promise.all(
        paths.map(
          (path) =>
            session.moveDisk({
              disk_id: path,
              size_bytes: 20 * mib,
              source: { kind: 'raw', path },
              changed: { kind: 'all' },
              base: null,
              earlier: null,
              compression: { codec: 'stored', level: 0 },
              stall_timeout_ms: 10_000,
            }).result,
        ),
      )
      await session.commit({
        backup_id: 'b',
        base_backup_id: '',
        disks: paths.map((path, i) => ({
          disk_id: path,
          root: moved[i]?.root ?? null,
          size_bytes: 20 * mib,
        })),
        body: Buffer.from('body'),
        lock_seconds: 0,
      })
      const listed = await repository.listManifests(null)
      expect(listed).toHaveLength(1)
      const manifest = listed[0]?.kind === 'manifest' ? listed[0].manifest : null
      expect(Buffer.from(manifest?.body ?? []).toString()).toBe('body')
      for (const [i, path] of paths.entries()) {
        const disk = manifest?.disks[i]
        expect(disk?.disk_id).toBe(path)
        if (disk === undefined) continue
        await repository.restoreDisk(disk, { kind: 'raw', path: `${path}.restored` }).result
        await run('cmp', path, `${path}.restored`)
      }
    })
  })
})

describe('an incremental backup', () => {
  it('reads only the blocks of the list and keeps the others from the base', async () => {
    await withRepository(async (repository, folder) => {
      const source = join(folder, 'source')
      const size = 100 * mib + 1000
      await makeDisk(source, size, [[0, noise('base', size)]])
      const options = { source: { kind: 'raw', path: source }, size_bytes: size } as const
      const base = await backUp(repository, options)

      const changes: [number, number][] = [
        [100, 1],
        [10 * blockSize, 3 * blockSize],
        [50 * mib - 1, 2],
        [size - 5, 5],
      ]
      for (const [offset, bytes] of changes) {
        await writeAt(source, offset, noise(`change ${offset}`, bytes))
      }
      // What the list leaves out must come from the base, not from the source.
      const truth = join(folder, 'truth')
      await run('cp', source, truth)
      await writeAt(source, 70 * mib, Buffer.alloc(blockSize, 1))

      const { moved, disk } = await backUp(repository, {
        ...options,
        changed: { kind: 'extents', extents: changes.flat() },
        base: base.disk,
        earlier: null,
      })
      expect(moved.changed_bytes).toBe(3 * blockSize + 8)
      expect(moved.read_bytes).toBe(6 * blockSize + (size % blockSize))
      expect(moved.block_count).toBe(7)
      expect(moved.stored_bytes).toBeLessThan(7 * blockSize + 64 * kib)
      const target = join(folder, 'target')
      await repository.restoreDisk(disk, { kind: 'raw', path: target }).result
      await run('cmp', truth, target)
      await repository.restoreDisk(base.disk, { kind: 'raw', path: `${target}.base` }).result
    })
  })

  it('reads what a real dirty bitmap of QEMU marks, discarded blocks become holes', async () => {
    await withRepository(async (repository, folder) => {
      const image = join(folder, 'image.qcow2')
      const size = 256 * mib
      await run('qemu-img', 'create', '-q', '-f', 'qcow2', image, String(size))
      await run('qemu-io', '-c', 'write -P 1 0 20M', '-c', 'write -P 2 100M 20M', image)
      await run('qemu-img', 'bitmap', '--add', '-g', '65536', image, 'since-full')
      const full = await serveImage(folder, 'qcow2', image, '-r')
      const base = await backUp(repository, {
        source: { kind: 'nbd', uri: full.uri },
        size_bytes: size,
      }).finally(() => full.stop())

      const changes = ['write -P 3 5M 100k', 'write -P 4 200M 64k', 'discard 104M 1M']
      await run('qemu-io', '-d', 'unmap', ...changes.flatMap((each) => ['-c', each]), image)
      const server = await serveImage(folder, 'qcow2', image, '-r', '-B', 'since-full')
      const { moved, disk } = await backUp(repository, {
        source: { kind: 'nbd', uri: server.uri },
        size_bytes: size,
        changed: { kind: 'bitmap', context: 'qemu:dirty-bitmap:since-full' },
        base: base.disk,
        earlier: null,
      }).finally(() => server.stop())

      expect(moved.changed_bytes).toBe(mib + 3 * blockSize)
      expect(moved.read_bytes).toBe(3 * blockSize)
      const target = join(folder, 'target')
      await repository.restoreDisk(disk, { kind: 'raw', path: target }).result
      await expectSame(image, target, ['qcow2', 'raw'])
      const proof = repository.openVerification(0).verifyDisk(disk)
      expect((await proof.result).ranges).toEqual([])
      expect(proof.progress().allocated_bytes).toBe(39 * mib + blockSize)
    })
  })

  it('keeps 2 TiB in milliseconds when nothing changed', async () => {
    await withRepository(async (repository, folder) => {
      const source = join(folder, 'source')
      await makeDisk(source, 2 * tib, [[tib, noise('middle', 4 * mib)]])
      const options = { source: { kind: 'raw', path: source }, size_bytes: 2 * tib } as const
      const base = await backUp(repository, options)
      const { moved, disk } = await backUp(repository, {
        ...options,
        changed: { kind: 'extents', extents: [] },
        base: base.disk,
        earlier: null,
      })
      expect(moved.read_bytes).toBe(0)
      expect(moved.stored_bytes).toBe(0)
      expect(disk.root).toBe(base.disk.root)
    })
  })
})
