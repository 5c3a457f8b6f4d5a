import { readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { sleep } from '@blockferry/core'
import type { BackupError } from '@blockferry/errors'
import { backup as catalog, move } from '@blockferry/proto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isIdentical, MoveStand, oddName, run } from './move_stand.ts'

const { MOVING, MOVED, DONE, FAILED } = move.Session_State
const mib = 1024 * 1024
const block = 65536

let stand: MoveStand

beforeAll(async () => {
  stand = await MoveStand.start()
})
afterAll(async () => {
  await stand[Symbol.asyncDispose]()
})

const failureOf = (call: Promise<unknown>): Promise<BackupError> =>
  call.then(
    () => {
      throw new Error('the call succeeded')
    },
    (thrown) => thrown,
  )

const rawDisk = (disk: string, path: string, sizeBytes: number) => ({
  disk,
  sizeBytes: BigInt(sizeBytes),
  format: 'raw',
  location: path,
  address: { $case: 'rawPath' as const, value: path },
})

const nbdDisk = (
  disk: string,
  uri: string,
  sizeBytes: number,
  changedContext = '',
  baseBackup = '',
) => ({
  disk,
  sizeBytes: BigInt(sizeBytes),
  format: 'qcow2',
  location: '/images/x',
  address: { $case: 'nbdUri' as const, value: uri },
  changedContext,
  baseBackup,
})

const manifestsOf = async (identity = '') =>
  await stand.calls.listManifests({
    folder: stand.repository,
    vmIdentity: identity,
    pageSize: 0,
    pageToken: '',
  })

const sessionFiles = async (): Promise<string[]> => {
  const root = join(stand.repository, 'sessions')
  const folders = await readdir(root)
  const names = await Promise.all(folders.map((folder) => readdir(join(root, folder))))
  // A checkpoint stays: the same point goes on there.
  return names.flat().filter((name) => !name.endsWith('.checkpoint'))
}

describe('backup', () => {
  it('brings back disks of every odd size, raw and qcow2', async () => {
    const sizes = { empty: 0, odd: mib + 512, ragged: mib + 1, large: 10 * 1024 * mib }
    const disks = []
    for (const [disk, size] of Object.entries(sizes)) {
      const runs =
        size > 0
          ? [
              { offset: 0, size: 70_000, seed: 1 },
              { offset: size - 700, size: 700, seed: 2 },
            ]
          : []
      disks.push(rawDisk(disk, await stand.raw(`${disk}-${oddName}`, size, runs), size))
    }
    const made = await stand.backup(stand.request(disks))
    expect(made.disks.map(({ disk }) => disk)).toEqual(['empty', 'large', 'odd', 'ragged'])
    expect(made.disks[0]?.root).toBe('')
    for (const [format, kind] of [
      ['raw', move.ImageFormat.RAW],
      ['qcow2', move.ImageFormat.QCOW2],
    ] as const) {
      const folder = stand.path(`new ${format} ${oddName}/below`)
      const done = await stand.restore(
        made.name,
        disks.map(({ disk }) => ({
          disk,
          targetPath: join(folder, `${disk}, ${oddName}`),
          format: kind,
        })),
      )
      expect(done.errorMessage).toBe('')
      expect(done.state).toBe(DONE)
      for (const { disk, location } of disks) {
        const path = join(folder, `${disk}, ${oddName}`)
        if (format === 'raw' && disk !== 'large') {
          expect((await readFile(path)).equals(await readFile(location))).toBe(true)
        }
        expect(await isIdentical(location, path, format), `${disk} ${format}`).toBe(true)
        const { stdout } = await run('du', ['-B1', path])
        expect(Number.parseInt(stdout, 10)).toBeLessThan(2 * mib)
      }
      expect((await readdir(folder)).length).toBe(disks.length)
    }
    expect(await readdir(stand.path('run'))).toEqual([])
  })

  it('compresses as it is told, and shares what was compressed otherwise', async () => {
    const path = await stand.raw('zstd.raw', mib, [])
    // Each word in a random order, so that blocks differ and levels do, too.
    const words = Array.from({ length: mib / 4 }, (_, i) => `${(i * 2_654_435_761) % 9973} word `)
    await writeFile(path, words.join('').slice(0, mib))
    const backUp = async (compression: move.Compression | undefined) => {
      const request = stand.request([rawDisk('vda', path, mib)])
      const [disk] = (await stand.backup({ ...request, compression })).disks
      return Number(disk?.storedBytes)
    }
    const zstd = await backUp({ codec: move.Compression_Codec.ZSTD, level: 9 })
    expect(zstd).toBeGreaterThan(0)
    expect(await backUp(undefined)).toBe(0)
    const made = await stand.backup(stand.request([rawDisk('vda', path, mib)]))
    const target = stand.path('from zstd.raw')
    await stand.restore(made.name, [
      { disk: 'vda', targetPath: target, format: move.ImageFormat.RAW },
    ])
    expect((await readFile(target)).equals(await readFile(path))).toBe(true)
    await writeFile(path, words.reverse().join('').slice(0, mib))
    expect(await backUp(undefined)).toBeGreaterThan(zstd * 1.2)
    await writeFile(path, `other ${words.join('')}`.slice(0, mib))
    const none = await backUp({ codec: move.Compression_Codec.STORED, level: 0 })
    expect(none).toBeGreaterThanOrEqual(mib)
  })

  it('says in the manifest what was moved', async () => {
    const path = await stand.raw('told.raw', 4 * mib, [{ offset: block, size: 2 * block, seed: 3 }])
    const request = stand.request([rawDisk('vda', path, 4 * mib)], {
      level: catalog.Level.FULL,
      policy: 'policies/nightly',
      host: 'hosts/h',
      decisions: [{ decision: 'FIRST_BACKUP', disk: '', message: 'first' }],
    })
    await stand.calls.startBackup(request)
    const { name } = await stand.until(request.sessionId, MOVED)
    const late = { decision: 'RESUMED', disk: '', message: 'again' }
    const again = { decision: 'FIRST_BACKUP', disk: '', message: 'said twice' }
    const { backup } = await stand.calls.commitBackup({ name, decisions: [late, again] })
    expect(backup).toMatchObject({
      name: `backups/${request.sessionId}`,
      vmIdentity: oddName,
      vmDisplayName: oddName,
      policy: 'policies/nightly',
      level: catalog.Level.FULL,
      method: catalog.Method.HOST,
      consistency: catalog.Consistency.OFF,
      pointId: request.point?.pointId,
      pointTime: request.point?.pointTime,
      baseBackup: '',
      driver: 'qemu',
    })
    expect(backup?.decisions.map(({ decision }) => decision)).toEqual(['FIRST_BACKUP', 'RESUMED'])
    expect(backup?.disks[0]).toMatchObject({
      disk: 'vda',
      format: 'raw',
      location: path,
      readBytes: BigInt(2 * block),
    })
    expect(backup?.disks[0]?.storedBytes).toBeGreaterThan(0n)
    expect(backup?.endTime).toBeInstanceOf(Date)
    const listed = await manifestsOf(oddName)
    expect(listed.backups.find((each) => each.name === backup?.name)).toEqual(backup)
    expect(await sessionFiles()).toEqual([])
  })

  it('reads only what the bitmap marks, and names its base', async () => {
    const size = 8 * mib
    const path = stand.path('tracked.qcow2')
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(size)])
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 0 1M', path])
    await run('qemu-img', ['bitmap', '--add', path, 'cp1'])
    const identity = 'tracked'
    const point = { vmIdentity: identity }
    const full = await stand.backup(
      stand.request([nbdDisk('vda', await stand.nbd(path, 'qcow2'), size)], point),
    )
    expect(full.disks[0]?.readBytes).toBe(BigInt(mib))
    await stand.release()
    await run('qemu-io', [
      '-f',
      'qcow2',
      '-c',
      `write -P 9 ${3 * block} 128k`,
      '-c',
      'write -P 1 7M 64k',
      path,
    ])
    const uri = await stand.nbd(path, 'qcow2', 'cp1')
    const base = full.name.replace('backups/', '')
    const made = await stand.backup(
      stand.request([nbdDisk('vda', uri, size, 'qemu:dirty-bitmap:cp1', base)], point),
    )
    expect(made.baseBackup).toBe(base)
    expect(made.sequence).toBe(2n)
    expect(made.disks[0]).toMatchObject({ readBytes: BigInt(3 * block), baseBackup: base })
    await stand.release()
    const target = stand.path('tracked-restored.raw')
    await stand.restore(made.name, [
      { disk: 'vda', targetPath: target, format: move.ImageFormat.RAW },
    ])
    await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', path, stand.path('truth.raw')])
    expect((await readFile(target)).equals(await readFile(stand.path('truth.raw')))).toBe(true)
  })

  it('reads only the supplied extents, and everything of disks that are new or resized', async () => {
    const point = { vmIdentity: 'supplied' }
    const one = await stand.raw('one.raw', mib, [{ offset: 0, size: mib, seed: 5 }])
    const two = await stand.raw('two.raw', mib, [{ offset: 0, size: mib, seed: 6 }])
    const base = await stand.backup(
      stand.request([rawDisk('one', one, mib), rawDisk('two', two, mib)], point),
    )
    await stand.raw('one.raw', mib, [{ offset: block, size: 10, seed: 8 }])
    await stand.raw('two.raw', 2 * mib, [])
    const three = await stand.raw('three.raw', mib, [{ offset: 0, size: block, seed: 9 }])
    const request = stand.request(
      [rawDisk('one', one, mib), rawDisk('two', two, 2 * mib), rawDisk('three', three, mib)],
      { ...point, baseBackup: base.name.replace('backups/', '') },
    )
    request.suppliedChanges = ['one', 'two', 'three'].map((disk) => ({
      disk,
      extents: [{ byteOffset: BigInt(block), sizeBytes: 10n }],
    }))
    const made = await stand.backup(request)
    const read = Object.fromEntries(
      made.disks.map(({ disk, readBytes }) => [disk, Number(readBytes)]),
    )
    expect(read).toEqual({ one: block, two: mib, three: block })
    expect(made.decisions.map(({ decision, disk }) => `${decision} ${disk}`)).toEqual([
      'CHANGED_BLOCKS_SUPPLIED one',
      'DISK_RESIZED two',
      'DISK_ADDED three',
    ])
    await stand.restore(made.name, [
      { disk: 'one', targetPath: stand.path('one-new'), format: move.ImageFormat.RAW },
      { disk: 'two', targetPath: stand.path('two-new'), format: move.ImageFormat.RAW },
    ])
    expect((await readFile(stand.path('one-new'))).equals(await readFile(one))).toBe(true)
    expect((await readFile(stand.path('two-new'))).equals(await readFile(two))).toBe(true)
  })

  it('refuses changed blocks without a base, and lists that are wrong', async () => {
    const path = await stand.raw('refused.raw', mib, [])
    const request = stand.request([rawDisk('vda', path, mib)], {
      vmIdentity: 'refused',
      baseBackup: 'gone',
    })
    const supply = (...extents: [number, number][]) => {
      request.suppliedChanges = [
        {
          disk: '',
          extents: extents.map(([offset, size]) => ({
            byteOffset: BigInt(offset),
            sizeBytes: BigInt(size),
          })),
        },
      ]
      return failureOf(stand.calls.startBackup(request))
    }
    expect((await supply([0, 1])).reason).toBe('BASE_MISSING')
    for (const wrong of [
      [
        [5, 5],
        [9, 1],
      ],
      [[mib - 1, 2]],
      [[0, 0]],
      [[-1, 2]],
    ] as [number, number][][]) {
      expect((await supply(...wrong)).reason, JSON.stringify(wrong)).toBe('CHANGED_BLOCKS_INVALID')
    }
    request.suppliedChanges = [{ disk: 'nope\n', extents: [] }]
    expect((await failureOf(stand.calls.startBackup(request))).reason).toBe('DISK_NOT_FOUND')
    expect((await manifestsOf('refused')).backups).toEqual([])
  })

  it('names the field of an argument that cannot be used', async () => {
    const path = await stand.raw('field.raw', mib, [])
    const field = async (change: (request: move.StartBackupRequest) => void) => {
      const request = stand.request([rawDisk('vda', path, mib)])
      change(request)
      const failure = await failureOf(stand.calls.startBackup(request))
      expect(failure.reason).toBe('ARGUMENT_INVALID')
      return failure.metadata.field
    }
    expect(await field((request) => Object.assign(request, { sessionId: '../x' }))).toBe(
      'session_id',
    )
    expect(await field((request) => Object.assign(request, { folder: 'here' }))).toBe('folder')
    expect(await field((request) => Object.assign(request, { token: undefined }))).toBe('token')
    expect(await field((request) => Object.assign(request, { point: undefined }))).toBe('point')
    expect(await field((request) => Object.assign(request.point as object, { disks: [] }))).toBe(
      'point.disks',
    )
    expect(
      await field((request) => Object.assign(request.point?.disks[0] as object, { disk: 'a\nb' })),
    ).toBe('point.disks.disk')
    expect(
      await field((request) => Object.assign(request.backup as object, { name: 'backups/a/b' })),
    ).toBe('backup.name')
  })

  it('gives the running session when it is started again', async () => {
    const path = await stand.raw('twice.raw', mib, [{ offset: 0, size: block, seed: 1 }])
    const request = stand.request([rawDisk('vda', path, mib)], { vmIdentity: 'twice' })
    const [one, two] = await Promise.all([
      stand.calls.startBackup(request),
      stand.calls.startBackup(request),
    ])
    expect(one.session?.startTime).toEqual(two.session?.startTime)
    const { name } = await stand.until(request.sessionId, MOVED)
    const commits = await Promise.all(
      [1, 2, 3].map(() => stand.calls.commitBackup({ name, decisions: [] })),
    )
    expect(new Set(commits.map(({ backup }) => backup?.sequence))).toEqual(new Set([1n]))
    expect((await stand.calls.startBackup(request)).session?.state).toBe(DONE)
    expect((await manifestsOf('twice')).backups.length).toBe(1)
  })

  it('gives the committed backup after a restart, and knows no session', async () => {
    const path = await stand.raw('after.raw', mib, [{ offset: 0, size: block, seed: 1 }])
    const request = stand.request([rawDisk('vda', path, mib)], { vmIdentity: 'after' })
    const made = await stand.backup(request)
    await stand.restart()
    const name = `sessions/${request.sessionId}`
    for (const call of [
      stand.calls.getSession({ name }),
      stand.calls.commitBackup({ name, decisions: [] }),
      stand.calls.cancelSession({ name }),
    ]) {
      expect((await failureOf(call)).reason).toBe('SESSION_NOT_FOUND')
    }
    await stand.calls.startBackup(request)
    expect((await stand.calls.commitBackup({ name, decisions: [] })).backup).toEqual(made)
    expect((await manifestsOf('after')).backups).toEqual([made])
  })

  it('ends the other disks and leaves nothing when one fails', async () => {
    await using silent = await silentServer(stand.path('silent.sock'))
    const request = stand.request(
      [nbdDisk('hangs', silent.uri, mib), rawDisk('missing', stand.path('no such\nimage'), mib)],
      { vmIdentity: 'fails' },
    )
    await stand.calls.startBackup(request)
    const session = await stand.until(request.sessionId, FAILED)
    expect(session.errorReason).toBe('IMAGE_MISSING')
    expect(session.errorMessage).toContain('no such')
    expect((await manifestsOf('fails')).backups).toEqual([])
    expect(await sessionFiles()).toEqual([])
    const commit = stand.calls.commitBackup({ name: session.name, decisions: [] })
    expect((await failureOf(commit)).reason).toBe('IMAGE_MISSING')
  })

  it('refuses a commit while blocks still move', async () => {
    await using silent = await silentServer(stand.path('early.sock'))
    const request = stand.request([nbdDisk('vda', silent.uri, mib)], { vmIdentity: 'early' })
    await stand.calls.startBackup(request)
    const name = `sessions/${request.sessionId}`
    const commit = stand.calls.commitBackup({ name, decisions: [] }, { deadlineMs: 5_000 })
    expect((await failureOf(commit)).reason).toBe('ARGUMENT_INVALID')
    await stand.calls.cancelSession({ name })
    expect((await manifestsOf('early')).backups).toEqual([])
  })

  it('stops on cancel, moving or moved, and can be started again', async () => {
    await using silent = await silentServer(stand.path('silent2.sock'))
    const hanging = stand.request([nbdDisk('vda', silent.uri, mib)], { vmIdentity: 'cancel' })
    await stand.calls.startBackup(hanging)
    const name = `sessions/${hanging.sessionId}`
    await sleep(100)
    expect((await stand.calls.getSession({ name })).session?.state).toBe(MOVING)
    await stand.calls.cancelSession({ name })
    await stand.calls.cancelSession({ name })
    const { session } = await stand.calls.getSession({ name })
    expect(session).toMatchObject({ state: FAILED, errorReason: 'CANCELLED' })
    const path = await stand.raw('cancel.raw', mib, [{ offset: 0, size: block, seed: 1 }])
    const moved = stand.request([rawDisk('vda', path, mib)], { vmIdentity: 'cancel' })
    await stand.calls.startBackup(moved)
    await stand.until(moved.sessionId, MOVED)
    await stand.calls.cancelSession({ name: `sessions/${moved.sessionId}` })
    expect(await sessionFiles()).toEqual([])
    expect((await stand.backup(moved)).sequence).toBe(1n)
  })

  it('says SOURCE_STALLED when the source stops answering', async () => {
    await using stalling = await MoveStand.start({ stallTimeoutMs: 300 })
    await using silent = await silentServer(stalling.path('s.sock'))
    const request = stalling.request([nbdDisk('vda', silent.uri, mib)])
    await stalling.calls.startBackup(request)
    const { errorReason } = await stalling.until(request.sessionId, FAILED)
    expect(errorReason).toBe('SOURCE_STALLED')
  })

  it('fences the older session of a VM', async () => {
    const path = await stand.raw('fence.raw', mib, [{ offset: 0, size: block, seed: 1 }])
    const older = stand.request([rawDisk('vda', path, mib)], { vmIdentity: 'fence' })
    const newer = stand.request([rawDisk('vda', path, mib)], { vmIdentity: 'fence' })
    await stand.calls.startBackup(older)
    await stand.until(older.sessionId, MOVED)
    expect((await stand.backup(newer)).sequence).toBe(1n)
    const name = `sessions/${older.sessionId}`
    const { session } = await stand.calls.getSession({ name })
    expect(session).toMatchObject({ state: FAILED, errorReason: 'RUN_FENCED' })
    const commit = await failureOf(stand.calls.commitBackup({ name, decisions: [] }))
    expect(commit.reason).toBe('RUN_FENCED')
    const late = { ...older, sessionId: 'late' }
    expect((await failureOf(stand.calls.startBackup(late))).reason).toBe('RUN_FENCED')
  })
})

describe('repositories', () => {
  it('finds a repository again that vanished and came back', async () => {
    await run('mv', [stand.repository, stand.path('away')])
    const missing = await failureOf(manifestsOf())
    expect(missing.reason).toBe('REPOSITORY_MISSING')
    await run('mv', [stand.path('away'), stand.repository])
    expect((await manifestsOf()).backups.length).toBeGreaterThan(5)
  })

  it('tells what a folder holds, and refuses to make one where something is', async () => {
    const folder = stand.repository
    const { repository } = await stand.calls.inspectRepository({ folder })
    expect(repository?.storedBytes).toBeGreaterThan(mib)
    expect(repository?.repositoryId).toMatch(/^[0-9a-f]{32}$/)
    const again = await failureOf(stand.calls.createRepository({ folder, passphraseFile: '' }))
    expect(again.reason).toBe('REPOSITORY_EXISTS')
    const one = await stand.calls.drawIncarnation({ folder })
    const two = await stand.calls.drawIncarnation({ folder })
    expect(two.incarnation).toBeGreaterThan(one.incarnation)
  })

  it('lists every manifest once over pages, and the damaged ones on the first', async () => {
    const { backups } = await manifestsOf()
    const root = join(stand.repository, 'manifests')
    const [vm = ''] = await readdir(root)
    const [file = ''] = await readdir(join(root, vm))
    const path = join(root, vm, file)
    const good = await readFile(path)
    await writeFile(path, good.subarray(0, 40))
    const seen: string[] = []
    let pageToken = ''
    let pages = 0
    do {
      const page = await stand.calls.listManifests({
        folder: stand.repository,
        vmIdentity: '',
        pageSize: 2,
        pageToken,
      })
      expect(page.damagedManifests.length).toBe(pages === 0 ? 1 : 0)
      seen.push(...page.backups.map(({ name }) => name))
      pageToken = page.nextPageToken
      pages++
    } while (pageToken !== '')
    await writeFile(path, good)
    expect(pages).toBeGreaterThan(3)
    expect(seen.length).toBe(backups.length - 1)
    expect(new Set(seen).size).toBe(seen.length)
  })
})

describe('verify', () => {
  it('proves a backup, and finds a flipped byte', async () => {
    const path = await stand.raw('proven.raw', mib, [{ offset: 0, size: mib, seed: 77 }])
    const made = await stand.backup(
      stand.request([rawDisk('vda', path, mib)], { vmIdentity: 'proven' }),
    )
    const verify = async (sessionId: string) => {
      const backupId = made.name.replace('backups/', '')
      const request = { sessionId, folder: stand.repository, backupId }
      await stand.calls.startVerify(move.StartVerifyRequest.fromPartial(request))
      return await stand.until(sessionId, DONE, FAILED)
    }
    const good = await verify('verify-1')
    expect(good).toMatchObject({ state: DONE, kind: move.Session_Kind.VERIFY })
    expect(good.disks[0]?.readBytes).toBe(BigInt(mib))
    const { stdout } = await run('find', [
      join(stand.repository, 'packs'),
      '-name',
      '*.pack',
      '-printf',
      '%T@ %f\n',
    ])
    const newest = stdout.trim().split('\n').sort().at(-1)?.split(' ')[1] ?? ''
    const pack = join(stand.repository, 'packs', newest.slice(0, 2), newest)
    const bytes = await readFile(pack)
    const middle = Math.floor(bytes.length / 3)
    bytes[middle] = (bytes[middle] ?? 0) ^ 1
    await writeFile(pack, bytes)
    const bad = await verify('verify-2')
    expect(bad.state).toBe(FAILED)
    expect(['BLOCK_CORRUPT', 'CHUNK_MISSING', 'REPOSITORY_DAMAGED']).toContain(bad.errorReason)
    const [damage] = bad.verifyReport?.damages ?? []
    const id = made.name.replace('backups/', '')
    expect(damage).toMatchObject({ backup: id, vmIdentity: 'proven', disk: 'vda' })
    expect(damage?.sizeBytes).toBe(65_536n)
    expect(bad.verifyReport).toMatchObject({ provenBackups: [], damagedBackups: [id] })

    // Another backup in the same repository is whole; together they are told apart.
    const other = await stand.raw('whole.raw', mib, [{ offset: 0, size: mib, seed: 78 }])
    const whole = await stand.backup(
      stand.request([rawDisk('vda', other, mib)], { vmIdentity: 'whole' }),
    )
    const wholeId = whole.name.replace('backups/', '')
    const all = { sessionId: 'verify-all', folder: stand.repository, firstBackupIds: [wholeId] }
    const level = move.VerifyLevel.BLOCKS
    await stand.calls.startVerify(move.StartVerifyRequest.fromPartial({ ...all, level }))
    const both = await stand.until('verify-all', DONE, FAILED)
    expect(both).toMatchObject({ state: FAILED, errorMetadata: { damaged_backups: id } })
    expect(both.verifyReport?.damagedBackups).toEqual([id])
    expect(both.verifyReport?.provenBackups[0]).toBe(wholeId)
    expect(both.verifyReport?.damages).toMatchObject([
      { backup: id, offsetBytes: damage?.offsetBytes },
    ])
    expect(both.disks[0]?.positionBytes).toBe(both.disks[0]?.sizeBytes)
    await writeFile(pack, bytes.with(middle, (bytes[middle] ?? 0) ^ 1))
    const mended = move.StartVerifyRequest.fromPartial({
      ...all,
      level,
      sessionId: 'verify-mended',
    })
    await stand.calls.startVerify(mended)
    expect((await stand.until('verify-mended', DONE, FAILED)).state).toBe(DONE)
    const missing = stand.calls.startVerify(
      move.StartVerifyRequest.fromPartial({
        ...{ sessionId: 'v3', folder: stand.repository, backupId: 'none' },
      }),
    )
    expect((await failureOf(missing)).reason).toBe('BACKUP_NOT_FOUND')
  })
})

/** Accepts connections and never says a word. */
async function silentServer(path: string): Promise<{ uri: string } & AsyncDisposable> {
  const sockets = new Set<{ destroy(): void }>()
  const server = createServer((socket) => sockets.add(socket))
  await new Promise<void>((resolve) => server.listen(path, resolve))
  return {
    uri: `nbd+unix:///?socket=${path}`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
