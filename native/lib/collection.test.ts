import {
  type FileHandle,
  mkdir,
  open,
  readdir,
  rename,
  stat,
  statfs,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { backUp, makeDisk, mib, noise, run, verify, withFolder } from './fixture.ts'
import { type CollectOptions, createRepository, openRepository, type Repository } from './index.ts'

const collection: CollectOptions = {
  incarnation: 1,
  number: 1000,
  undo_window_seconds: 0,
  dead_sessions: [],
  bytes_per_second: 0,
  dry_run: false,
}

const filesIn = async (folder: string, suffix: string) =>
  (await readdir(folder, { recursive: true })).filter((name) => name.endsWith(suffix)).sort()

/** Whether so many more bytes found room. */
const fits = (file: FileHandle, size: number): Promise<boolean> =>
  file.write(Buffer.alloc(size, 1)).then(
    ({ bytesWritten }) => bytesWritten === size,
    () => false,
  )

/** Three backups of one disk, each all new; returns their ids and images. */
async function threeBackups(folder: string, repository: Repository) {
  const backups: {
    id: string
    image: string
    disk: { root: string | null; size_bytes: number }
  }[] = []
  for (const seed of ['one', 'two', 'three']) {
    const image = join(folder, seed)
    await makeDisk(image, 8 * mib, [[0, noise(seed, 4 * mib)]])
    const { disk } = await backUp(repository, {
      source: { kind: 'raw', path: image },
      size_bytes: 8 * mib,
    })
    const listed = await repository.listManifests(null)
    const last = listed.at(-1)
    if (last?.kind !== 'manifest') throw new Error('the backup is not listed')
    backups.push({ id: last.manifest.backup_id, image, disk })
  }
  return backups
}

describe('collect', { timeout: 60_000 }, () => {
  const withRepository = (
    use: (repository: Repository, folder: string, path: string) => Promise<void>,
  ) =>
    withFolder(async (folder) => {
      const path = join(folder, 'repository')
      await createRepository(path, null)
      const repository = await openRepository(path, false, null)
      try {
        await use(repository, folder, path)
      } finally {
        repository.close()
      }
    })

  it.runIf(process.getuid?.() === 0)('gives space back on a file system without any', async () => {
    await withFolder(async (folder) => {
      const place = join(folder, 'small')
      await mkdir(place)
      await run('mount', '-t', 'tmpfs', '-o', 'size=32m', 'tmpfs', place)
      try {
        const path = join(place, 'repository')
        await createRepository(path, null)
        const repository = await openRepository(path, false, null)
        const [first, second, third] = await threeBackups(folder, repository)
        if (!first || !second || !third) throw new Error('three were made')
        const ballast = await open(join(place, 'ballast'), 'w')
        for (const size of [mib, 4096]) while (await fits(ballast, size)) {}
        await ballast.close()
        const vm = repository.vmPseudonym('vm')
        const before = await statfs(place)
        expect(before.bavail).toBe(0)
        await repository.removeBackup(vm, second.id)
        const report = await repository.collect(collection).result
        expect(report.dropped_backups).toHaveLength(1)
        expect(report.deleted.size_bytes).toBeGreaterThan(3 * mib)
        // The reserve is there again, if there was room for it.
        const after = await statfs(place)
        const reserve = await stat(join(path, 'reserve')).catch(() => null)
        const gained = (after.bavail - before.bavail) * after.bsize + (reserve?.size ?? 0)
        expect(gained).toBeGreaterThan(report.deleted.size_bytes)
        for (const { disk } of [first, third]) expect(await verify(repository, disk)).toEqual([])
        repository.close()
      } finally {
        await run('umount', '--lazy', place)
      }
    })
  })

  it('gives back what only a removed backup needed', async () => {
    await withRepository(async (repository, folder, path) => {
      const [first, second, third] = await threeBackups(folder, repository)
      if (!first || !second || !third) throw new Error('three were made')
      const vm = repository.vmPseudonym('vm')
      await repository.removeBackup(vm, second.id)
      const marks = (await repository.listManifests(vm)).map((one) => one.removed_seconds !== null)
      expect(marks).toEqual([false, true, false])

      const foreseen = await repository.collect({ ...collection, dry_run: true }).result
      expect(foreseen.dropped_backups).toEqual([`${vm}/${second.id}`])
      expect(await repository.listManifests(vm)).toHaveLength(3)

      const before = repository.info().stored_bytes
      const report = await repository.collect(collection).result
      expect(report.dropped_backups).toEqual([`${vm}/${second.id}`])
      expect(report.deleted).toEqual(foreseen.tombstoned)
      expect(report.deleted.size_bytes).toBeGreaterThan(4 * mib)
      expect(repository.info().stored_bytes).toBe(before - report.deleted.size_bytes)
      expect(await filesIn(join(path, 'packs'), '.dead')).toEqual([])
      expect(await readdir(join(path, 'collectors'))).toEqual([])
      for (const { image, disk } of [first, third]) {
        await repository.restoreDisk(disk, { kind: 'raw', path: `${image}.restored` }).result
        await run('cmp', image, `${image}.restored`)
      }
      await expect(repository.undeleteBackup(vm, second.id)).rejects.toMatchObject({
        code: 'BACKUP_NOT_FOUND',
      })
    })
  })

  it('writes the rest of mostly dead packs anew at the rate it is given', async () => {
    await withRepository(async (repository, folder) => {
      const backUpOf = async (name: string, dataBytes: number) => {
        const path = join(folder, name)
        await makeDisk(path, 8 * mib, [[0, noise('much', dataBytes)]])
        return await backUp(repository, { source: { kind: 'raw', path }, size_bytes: 8 * mib })
      }
      await backUpOf('all', 8 * mib)
      const { disk } = await backUpOf('less', mib)
      const vm = repository.vmPseudonym('vm')
      const [first] = await repository.listManifests(null)
      if (first?.kind !== 'manifest') throw new Error('it is not listed')
      await repository.removeBackup(vm, first.manifest.backup_id)
      const begunMs = performance.now()
      const limits = { ...collection, bytes_per_second: 2 * mib }
      const report = await repository.collect(limits).result
      expect(report.copied.size_bytes).toBeGreaterThan(mib)
      expect(performance.now() - begunMs).toBeGreaterThan(450)
      expect(await verify(repository, disk)).toEqual([])
    })
  })

  it('keeps a removed backup for the undo window, and one that is held', async () => {
    await withRepository(async (repository, folder) => {
      const [first, second] = await threeBackups(folder, repository)
      if (!first || !second) throw new Error('three were made')
      const vm = repository.vmPseudonym('vm')
      await repository.removeBackup(vm, first.id)
      const window = { ...collection, undo_window_seconds: 3600 }
      expect((await repository.collect(window).result).dropped_backups).toEqual([])
      await expect(repository.holdBackup(vm, first.id)).rejects.toMatchObject({
        code: 'BACKUP_NOT_FOUND',
      })
      await repository.undeleteBackup(vm, first.id)
      await repository.holdBackup(vm, second.id)
      await expect(repository.removeBackup(vm, second.id)).rejects.toMatchObject({
        code: 'BACKUP_HELD',
      })
      await repository.releaseBackup(vm, second.id)
      await repository.removeBackup(vm, second.id)
      const report = await repository.collect({ ...collection, number: 1001 }).result
      expect(report.dropped_backups).toEqual([`${vm}/${second.id}`])
    })
  })

  it('waits for a session that was open, and fences it when it is dead', async () => {
    await withRepository(async (repository, folder, path) => {
      const [first] = await threeBackups(folder, repository)
      if (!first) throw new Error('three were made')
      const vm = repository.vmPseudonym('vm')
      const session = await repository.openSession({
        vm_pseudonym: repository.vmPseudonym('other'),
        point_id: 'point-other',
        incarnation: 1,
        number: 99,
      })
      await repository.removeBackup(vm, first.id)
      const waiting = await repository.collect(collection).result
      expect(waiting.deleted.pack_count).toBe(0)
      expect(waiting.tombstoned.pack_count).toBeGreaterThan(0)
      const open = await repository.listOpenSessions()
      expect(open).toHaveLength(1)
      const again = await repository.collect({ ...collection, number: 1001 }).result
      expect(again.waits_for).toEqual(open)
      expect(again.waiting.pack_count).toBe(waiting.tombstoned.pack_count)
      const fencing = { ...collection, number: 1002, dead_sessions: open }
      expect((await repository.collect(fencing).result).deleted).toEqual(waiting.tombstoned)
      const commit = { backup_id: 'late', base_backup_id: '', disks: [], body: new Uint8Array() }
      await expect(session.commit({ ...commit, lock_seconds: 0 })).rejects.toMatchObject({
        code: 'RUN_FENCED',
      })
      await session.abort()
      expect(await repository.listOpenSessions()).toEqual([])
      expect(await filesIn(join(path, 'sessions'), '.pack-new')).toEqual([])
    })
  })

  it('deletes nothing as long as a backup cannot be read', async () => {
    await withRepository(async (repository, folder, path) => {
      const [first, second] = await threeBackups(folder, repository)
      if (!first || !second) throw new Error('three were made')
      const vm = repository.vmPseudonym('vm')
      await repository.removeBackup(vm, first.id)
      const [manifest] = (await filesIn(join(path, 'manifests'), `-${second.id}.manifest`)).map(
        (name) => join(path, 'manifests', name),
      )
      if (!manifest) throw new Error('the manifest is not there')
      await rename(manifest, `${manifest}.aside`)
      await writeFile(manifest, 'damaged')
      const packs = await filesIn(join(path, 'packs'), '.pack')
      await expect(repository.collect(collection).result).rejects.toMatchObject({
        code: 'COLLECTION_BLOCKED',
      })
      expect(await filesIn(join(path, 'packs'), '.pack')).toEqual(packs)
      await rename(`${manifest}.aside`, manifest)
      const report = await repository.collect({ ...collection, number: 1001 }).result
      expect(report.deleted.pack_count).toBeGreaterThan(0)
    })
  })

  it('removes no backup that is locked', async () => {
    await withRepository(async (repository) => {
      const vm = repository.vmPseudonym('vm')
      const session = await repository.openSession({
        vm_pseudonym: vm,
        point_id: 'point',
        incarnation: 1,
        number: 1,
      })
      const { now_seconds } = await repository.advanceTime(false)
      const manifest = await session.commit({
        backup_id: 'locked',
        base_backup_id: '',
        disks: [],
        body: new Uint8Array(),
        lock_seconds: 3600,
      })
      expect(manifest.lock_until_seconds).toBeGreaterThanOrEqual(now_seconds + 3600)
      await expect(repository.removeBackup(vm, 'locked')).rejects.toMatchObject({
        code: 'BACKUP_LOCKED',
      })
    })
  })
})
