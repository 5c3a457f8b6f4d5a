import { BackupError } from '@blockferry/errors'
import { backup, move, schedule, snapshot } from '@blockferry/proto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ended, eventually, Site } from './site.ts'

const { State } = { State: schedule.Run_State }
const { COMMITTED, DROPPED } = snapshot.PointOutcome
let site: Site

beforeAll(async () => {
  site = await Site.open()
})
afterAll(() => site?.close())
beforeEach(() => site.begin())
afterEach(() => site.end())

const request = (given: Partial<schedule.StartBackupRequest> = {}) =>
  schedule.StartBackupRequest.fromPartial({ vm: 'vm1', ...given })

const decisionsOf = (run: schedule.Run) => run.decisions.map(({ decision }) => decision)

/** Fails the first `times` calls of a method that meet the moment, as if the service went away. */
function silence(moment: 'before' | 'after', method: string, times = 1): void {
  let left = times
  site.world.interfere = (now, called) => {
    if (now === moment && called === method && left-- > 0) {
      throw new BackupError('SERVICE_UNREACHABLE', 'silenced')
    }
  }
}

describe('a backup run', () => {
  it('takes one point, commits it, releases it as committed and records it', async () => {
    await using client = await site.schedule()
    const { run } = await client.startBackup(request())
    expect(run?.state).toBe(State.QUEUED)
    const last = await ended(client, run)
    expect(last.error).toBeUndefined()
    expect(last.state).toBe(State.SUCCEEDED)
    expect(site.world.manifests).toHaveLength(1)
    expect(site.world.manifests[0]).toMatchObject({
      vmIdentity: 'vm1',
      sequence: 1n,
      run: last.name,
    })
    expect(site.world.released).toEqual([{ pointId: last.pointId, outcome: COMMITTED }])
    expect(site.world.recorded).toEqual([last.backup])
    expect(decisionsOf(last)).toEqual(['FIRST_BACKUP', 'QUIESCED'])
    expect(last.disks).toMatchObject([{ disk: 'disk0', done: true }])
  })

  it('offers the newest backup as base and keeps the bitmaps of the last and the last full', async () => {
    await using client = await site.schedule()
    const ids: string[] = []
    for (let count = 0; count < 3; count++) {
      const last = await ended(client, (await client.startBackup(request())).run)
      ids.push(last.backup.split('/').at(-1) ?? '')
    }
    await ended(
      client,
      (await client.startBackup(request({ level: backup.Level.DIFFERENTIAL }))).run,
    )
    const full = await ended(
      client,
      (await client.startBackup(request({ level: backup.Level.FULL }))).run,
    )
    expect(decisionsOf(full)).toContain('FULL_REQUESTED')
    const requests = site.world.manifests.map(({ pointId }) => pointId)
    expect(site.world.manifests.map(({ baseBackup }) => baseBackup)).toEqual([
      '',
      ids[0],
      ids[1],
      ids[0],
      '',
    ])
    expect(requests).toHaveLength(5)
    expect(site.world.manifests.map(({ sequence }) => sequence)).toEqual([1n, 2n, 3n, 4n, 5n])
  })

  it.each([
    ['listManifests'],
    ['beginPoint'],
    ['drawIncarnation'],
    ['startBackup'],
    ['confirmPoint'],
    ['commitBackup'],
    ['releasePoint'],
    ['recordBackup'],
  ])('commits one backup of one point although the answer of %s is lost', async (method) => {
    await using client = await site.schedule()
    silence('after', method)
    const last = await ended(client, (await client.startBackup(request())).run)
    expect(last.error).toBeUndefined()
    expect(last.state).toBe(State.SUCCEEDED)
    expect(site.world.manifests).toHaveLength(1)
    expect(site.world.begun).toHaveLength(1)
    expect(site.world.points.size).toBe(0)
    expect(site.world.calls.filter((call) => call === method).length).toBeGreaterThan(1)
  })

  it.each([
    ['beginPoint', 'FLEECE_FULL'],
    ['startBackup', 'REPOSITORY_MISSING'],
    ['confirmPoint', 'IMAGE_CHANGED'],
    ['commitBackup', 'REPOSITORY_FULL'],
    ['commitBackup', 'RUN_FENCED'],
  ] as const)('fails with the reason of %s (%s) and leaves no point', async (method, reason) => {
    await using client = await site.schedule()
    site.world.interfere = (moment, called) => {
      if (moment === 'before' && called === method) {
        throw new BackupError(reason, 'told by the double', { disk: 'disk0' })
      }
    }
    const last = await ended(client, (await client.startBackup(request())).run)
    expect(last.state).toBe(State.FAILED)
    expect(last.error).toMatchObject({ reason, metadata: { disk: 'disk0' } })
    expect(site.world.points.size).toBe(0)
    expect(site.world.manifests).toEqual([])
    expect(site.world.released).toEqual([{ pointId: last.pointId, outcome: DROPPED }])
  })

  it('ends with the reason of the session that failed', async () => {
    await using client = await site.schedule()
    site.world.failSession = new BackupError('SOURCE_READ_FAILED', 'block 7 cannot be read')
    const last = await ended(client, (await client.startBackup(request())).run)
    expect(last.error).toMatchObject({ reason: 'SOURCE_READ_FAILED' })
    expect(site.world.points.size).toBe(0)
  })

  it('says that the point was lost when that is why the source cannot be read', async () => {
    await using client = await site.schedule()
    site.world.failSession = new BackupError('SOURCE_UNREACHABLE', 'connection reset')
    site.world.interfere = (moment, called) => {
      if (moment === 'before' && called === 'confirmPoint') {
        throw new BackupError('VM_POWERED_OFF', 'the VM was powered off')
      }
    }
    const last = await ended(client, (await client.startBackup(request())).run)
    expect(last.error?.reason).toBe('VM_POWERED_OFF')
  })

  it('goes on with the same point when the mover is restarted', async () => {
    site.world.movingMs = 400
    await using client = await site.schedule()
    const { run } = await client.startBackup(request())
    await eventually('a session', () => site.world.sessions.size === 1)
    await site.stop('move')
    site.world.sessions = new Map()
    await site.start('move')
    const last = await ended(client, run)
    expect(last.state).toBe(State.SUCCEEDED)
    expect(decisionsOf(last)).toContain('RESUMED')
    expect(site.world.begun).toHaveLength(1)
  })

  it('moves again when the mover is restarted between the last block and the commit', async () => {
    await using client = await site.schedule()
    let restarted = false
    site.world.interfere = (moment, called) => {
      if (moment === 'before' && called === 'commitBackup' && !restarted) {
        restarted = true
        site.world.sessions = new Map()
      }
    }
    const last = await ended(client, (await client.startBackup(request())).run)
    expect(last.error).toBeUndefined()
    expect(last.state).toBe(State.SUCCEEDED)
    expect(site.world.manifests).toHaveLength(1)
    expect(site.world.begun).toHaveLength(1)
  })

  it('takes a new point once when the first one is not found any more, without reading on', async () => {
    site.world.movingMs = 60_000
    await using client = await site.schedule()
    const { run } = await client.startBackup(request())
    await eventually('a session', () => site.world.sessions.size === 1)
    site.world.movingMs = 50
    site.world.points.clear()
    const last = await ended(client, run)
    expect(last.error).toBeUndefined()
    expect(decisionsOf(last)).toContain('POINT_RETAKEN')
    expect(site.world.begun).toHaveLength(2)
    expect(site.world.manifests).toMatchObject([{ pointId: site.world.begun[1] }])
    expect(new Set(site.world.sessions.keys()).size).toBe(2)
  })

  it('ends the reader of a lost point, then the point, then takes a new one', async () => {
    site.world.movingMs = 60_000
    await using client = await site.schedule()
    const { run } = await client.startBackup(request())
    await eventually('a session', () => site.world.sessions.size === 1)
    const [lost] = [...site.world.sessions.keys()]
    site.world.movingMs = 50
    site.world.points.clear()
    expect((await ended(client, run)).state).toBe(State.SUCCEEDED)
    expect(site.world.cancelled).toEqual([lost])
    const outcomes = site.world.released.map(({ outcome }) => outcome)
    expect(outcomes).toEqual([DROPPED, COMMITTED])
    expect(site.world.released.map(({ pointId }) => pointId)).toEqual(site.world.begun)
    const undoing = ['beginPoint', 'cancelSession', 'releasePoint']
    const calls = site.world.calls.filter((call) => undoing.includes(call))
    expect(calls).toEqual([...undoing, 'beginPoint', 'releasePoint'])
  })

  it('takes a new point when the first one ended with the snapshot service that took it', async () => {
    await using client = await site.schedule()
    let lost = false
    site.world.interfere = (moment, called) => {
      if (moment !== 'after' || called !== 'beginPoint' || lost) return
      lost = true
      throw new BackupError('POINT_LOST', 'its storage daemon ended')
    }
    const last = await ended(client, (await client.startBackup(request())).run)
    expect(last.error).toBeUndefined()
    expect(last.state).toBe(State.SUCCEEDED)
    expect(decisionsOf(last)).toContain('POINT_RETAKEN')
    const [first, second] = site.world.begun
    expect(site.world.manifests).toMatchObject([{ pointId: second }])
    expect(site.world.released).toEqual([
      { pointId: first, outcome: DROPPED },
      { pointId: second, outcome: COMMITTED },
    ])
  })

  it('fails when the second point is lost, too', async () => {
    site.world.movingMs = 300
    await using client = await site.schedule()
    const { run } = await client.startBackup(request())
    for (const count of [1, 2]) {
      await eventually(`session ${count}`, () => site.world.sessions.size === count)
      site.world.points.clear()
    }
    const last = await ended(client, run)
    expect(last.error?.reason).toBe('POINT_NOT_FOUND')
    expect(site.world.manifests).toEqual([])
  })

  it('waits for a point of the VM that is being removed', async () => {
    await using client = await site.schedule()
    let busy = 3
    site.world.interfere = (moment, called) => {
      if (moment === 'before' && called === 'beginPoint' && busy-- > 0) {
        throw new BackupError('VM_BUSY', 'held', { owner: 'somebody' })
      }
    }
    const last = await ended(client, (await client.startBackup(request())).run)
    expect(last.state).toBe(State.SUCCEEDED)
  })

  it('succeeds although the catalog never answers: the repository has the backup', async () => {
    await using client = await site.schedule()
    silence('before', 'recordBackup', Number.POSITIVE_INFINITY)
    const last = await ended(client, (await client.startBackup(request())).run)
    expect(last.state).toBe(State.SUCCEEDED)
    expect(site.world.manifests).toHaveLength(1)
    expect(site.world.points.size).toBe(0)
  })

  it('ends at its deadline and leaves nothing', async () => {
    site.world.movingMs = 60_000
    await using client = await site.schedule('schedule', { runDeadlineMs: 600 })
    const last = await ended(client, (await client.startBackup(request())).run)
    expect(last.error?.reason).toBe('DEADLINE_EXCEEDED')
    expect(site.world.points.size).toBe(0)
    expect(site.world.cancelled).toHaveLength(1)
  })

  it('reads the blocks of a supplied list against the backup it counts from', async () => {
    await using client = await site.schedule()
    const first = await ended(client, (await client.startBackup(request())).run)
    const base = first.backup.split('/').at(-1) ?? ''
    const suppliedChanges = [{ disk: '', extents: [{ byteOffset: 0n, sizeBytes: 65_536n }] }]
    const last = await ended(
      client,
      (await client.startBackup(request({ baseBackup: base, suppliedChanges }))).run,
    )
    expect(last.error).toBeUndefined()
    const sent = [...site.world.sessions.values()].at(-1)?.request
    expect(sent?.suppliedChanges).toEqual([{ ...suppliedChanges[0], disk: 'disk0' }])
    expect(sent?.backup?.baseBackup).toBe(base)
    const wrong = request({ baseBackup: base, suppliedChanges: [{ disk: 'x', extents: [] }] })
    await expect(client.startBackup(wrong)).rejects.toMatchObject({ reason: 'DISK_NOT_FOUND' })
    const missing = client.startBackup(request({ baseBackup: 'nothing', suppliedChanges }))
    await expect(missing).rejects.toMatchObject({ reason: 'BASE_MISSING' })
  })
})

describe('cancelling a run', () => {
  it.each([
    ['beginPoint', 'before'],
    ['beginPoint', 'after'],
    ['startBackup', 'before'],
    ['startBackup', 'after'],
    ['confirmPoint', 'before'],
  ] as const)(
    'while %s (%s) works ends CANCELLED with no point and no backup',
    async (method, moment) => {
      await using client = await site.schedule()
      let reached = () => {}
      const there = new Promise<void>((resolve) => {
        reached = resolve
      })
      let release = () => {}
      const held = new Promise<void>((resolve) => {
        release = resolve
      })
      site.world.interfere = async (now, called) => {
        if (now !== moment || called !== method) return
        reached()
        await held
      }
      const { run } = await client.startBackup(request())
      await there
      const asked = (await client.cancelRun({ name: run?.name ?? '' })).run
      expect(asked?.cancelRequested).toBe(true)
      release()
      const last = await ended(client, run)
      expect(last.state).toBe(State.CANCELLED)
      expect(last.error?.reason).toBe('CANCELLED')
      await eventually('no point', () => site.world.points.size === 0)
      expect(site.world.manifests).toEqual([])
    },
  )

  it('while blocks move ends CANCELLED at once', async () => {
    site.world.movingMs = 60_000
    await using client = await site.schedule()
    const { run } = await client.startBackup(request())
    await eventually('a session', () => site.world.sessions.size === 1)
    await client.cancelRun({ name: run?.name ?? '' })
    const last = await ended(client, run)
    expect(last.state).toBe(State.CANCELLED)
    expect(site.world.cancelled).toEqual([...site.world.sessions.keys()])
  })

  it('ends a queued run at once and is refused for one that has ended', async () => {
    await using client = await site.schedule('schedule', { runsMax: 0 })
    const { run } = await client.startBackup(request())
    const name = run?.name ?? ''
    const { run: cancelled } = await client.cancelRun({ name })
    expect(cancelled?.state).toBe(State.CANCELLED)
    expect(cancelled?.error?.reason).toBe('CANCELLED')
    await expect(client.cancelRun({ name })).rejects.toMatchObject({
      reason: 'RUN_NOT_CANCELLABLE',
    })
    expect(site.world.begun).toEqual([])
  })

  it('is refused while the backup is committed, and the run succeeds', async () => {
    await using client = await site.schedule()
    let refusal: unknown
    let name = ''
    site.world.interfere = async (moment, called) => {
      if (moment !== 'before' || called !== 'commitBackup') return
      refusal = await client.cancelRun({ name }).catch((thrown: unknown) => thrown)
    }
    const { run } = await client.startBackup(request())
    name = run?.name ?? ''
    const last = await ended(client, run)
    expect(refusal).toMatchObject({ reason: 'RUN_NOT_CANCELLABLE' })
    expect(last.state).toBe(State.SUCCEEDED)
  })

  it('is seen by the process that holds the run when another one is asked', async () => {
    site.world.movingMs = 60_000
    await using first = await site.schedule('one')
    const { run } = await first.startBackup(request())
    await eventually('a session', () => site.world.sessions.size === 1)
    await using second = await site.schedule('two')
    await second.cancelRun({ name: run?.name ?? '' })
    expect((await ended(second, run)).state).toBe(State.CANCELLED)
  })
})

describe('watching a run', () => {
  it('shows each state in order, the final one last, and then ends', async () => {
    site.world.movingMs = 200
    await using client = await site.schedule()
    const { run } = await client.startBackup(request())
    const states: number[] = []
    for await (const { run: seen } of client.watchRun({ name: run?.name ?? '' })) {
      states.push(seen?.state ?? 0)
    }
    expect([...states].sort((one, other) => one - other)).toEqual(states)
    expect(states.at(-1)).toBe(State.SUCCEEDED)
    expect(states).toContain(State.MOVING)
  })

  it('hears of the end at once, however seldom it looks', async () => {
    await using client = await site.schedule('schedule', { watchMs: 600_000 })
    const { run } = await client.startBackup(request())
    let last: schedule.Run | undefined
    for await (const answer of client.watchRun({ name: run?.name ?? '' })) last = answer.run
    expect(last?.state).toBe(State.SUCCEEDED)
  })
})

describe('restore and verify runs', () => {
  const committed = async (client: Awaited<ReturnType<Site['schedule']>>) =>
    (await ended(client, (await client.startBackup(request())).run)).backup

  it('restores every disk under a safe name and has a script for a whole QEMU machine', async () => {
    site.world.addVm('vm1', 'hosts/h1', ['a/b', '../c', 'ü\n'])
    await using client = await site.schedule()
    const name = await committed(client)
    const folder = `${site.folder}/restored`
    const restore = schedule.StartRestoreRequest.fromPartial({ backup: name, targetFolder: folder })
    const last = await ended(client, (await client.startRestore(restore)).run)
    expect(last).toMatchObject({ state: State.SUCCEEDED, targetFolder: folder })
    expect(last.startScript).toBe(`${folder}/start.sh`)
    const { rows } = await site.pool.query<{ plan: { restore: unknown } }>(
      "SELECT plan FROM schedule.runs WHERE plan ? 'restore'",
    )
    const sent = move.StartRestoreRequest.fromJSON(rows[0]?.plan.restore)
    expect(sent.disks.map(({ targetPath }) => targetPath)).toEqual([
      `${folder}/a%2Fb.qcow2`,
      `${folder}/%2E.%2Fc.qcow2`,
      `${folder}/%C3%BC%0A.qcow2`,
    ])
  })

  it('refuses to restore over what exists, into a VM that runs, and an unknown disk', async () => {
    await using client = await site.schedule()
    const name = await committed(client)
    const ask = (given: Partial<schedule.StartRestoreRequest>) =>
      client.startRestore(schedule.StartRestoreRequest.fromPartial({ backup: name, ...given }))
    const { mkdir, writeFile } = await import('node:fs/promises')
    const folder = `${site.folder}/taken`
    await mkdir(folder)
    await writeFile(`${folder}/disk0.raw`, '')
    await expect(ask({ targetFolder: folder, format: move.ImageFormat.RAW })).rejects.toMatchObject(
      { reason: 'TARGET_EXISTS', metadata: { path: `${folder}/disk0.raw` } },
    )
    await expect(ask({ targetFolder: folder, disks: ['x'] })).rejects.toMatchObject({
      reason: 'DISK_NOT_FOUND',
    })
    await expect(ask({ inPlace: true })).rejects.toMatchObject({
      reason: 'ARGUMENT_INVALID',
      metadata: { field: 'confirm_in_place' },
    })
    await expect(ask({ inPlace: true, confirmInPlace: true })).rejects.toMatchObject({
      reason: 'TARGET_IN_USE',
    })
    const vm = site.world.vms.get('vm1')
    if (vm) vm.state = snapshot.VmState.OFF
    const last = await ended(client, (await ask({ inPlace: true, confirmInPlace: true })).run)
    expect(last.error).toBeUndefined()
  })

  it('asks for a differential restore of the images of a VM that is refused as half restored', async () => {
    await using client = await site.schedule()
    const backup = await committed(client)
    const vm = site.world.vms.get('vm1')
    if (vm) Object.assign(vm, { state: snapshot.VmState.OFF, refusalReason: 'RESTORE_INCOMPLETE' })
    const given = { backup, inPlace: true, confirmInPlace: true, differential: true }
    const restore = schedule.StartRestoreRequest.fromPartial(given)
    const last = await ended(client, (await client.startRestore(restore)).run)
    expect(last.state).toBe(State.SUCCEEDED)
    const { rows } = await site.pool.query<{ plan: { restore: unknown } }>(
      "SELECT plan FROM schedule.runs WHERE plan ? 'restore'",
    )
    const sent = move.StartRestoreRequest.fromJSON(rows[0]?.plan.restore)
    expect(sent).toMatchObject({ differential: true, startScriptPath: '' })
    expect(sent.disks.every(({ replace }) => replace)).toBe(true)
    const again = client.startBackup(request())
    await expect(again).rejects.toMatchObject({ reason: 'RESTORE_INCOMPLETE' })

    site.world.movingMs = 60_000
    const started = await client.startRestore(restore)
    const name = started.run?.name ?? ''
    await eventually('the restore moves', async () => {
      return (await client.getRun({ name })).run?.state === State.MOVING
    })
    await client.cancelRun({ name })
    const cancelled = await ended(client, started.run)
    expect(cancelled).toMatchObject({ state: State.CANCELLED, error: { reason: 'CANCELLED' } })
    expect(cancelled.error?.message).toContain('half restored and marked')
  })

  it('finds a backup that the catalog lacks, and ends with what the verification found', async () => {
    await using client = await site.schedule()
    const name = await committed(client)
    site.world.recorded.length = 0
    site.world.failSession = new BackupError('BLOCK_CORRUPT', 'block 3 of disk0 is damaged')
    const last = await ended(
      client,
      (await client.startVerify(schedule.StartVerifyRequest.fromPartial({ backup: name }))).run,
    )
    expect(last).toMatchObject({ state: State.FAILED, error: { reason: 'BLOCK_CORRUPT' } })
    const unknown = client.startVerify(
      schedule.StartVerifyRequest.fromPartial({ backup: 'repositories/nightly/backups/x' }),
    )
    await expect(unknown).rejects.toMatchObject({ reason: 'BACKUP_NOT_FOUND' })
  })

  it('notes what a verification of the repository proved and found, and begins with the oldest proof', async () => {
    await using client = await site.schedule()
    site.world.cataloged = [
      backup.Backup.fromPartial({
        name: 'repositories/nightly/backups/new',
        verifyTime: new Date(9),
      }),
      backup.Backup.fromPartial({ name: 'repositories/nightly/backups/never' }),
      backup.Backup.fromPartial({
        name: 'repositories/nightly/backups/old',
        verifyTime: new Date(5),
      }),
    ]
    const verifyReport = move.VerifyReport.fromPartial({
      ...{ provenBackups: ['never', 'old'], damagedBackups: ['new'] },
      damages: [{ backup: 'new', disk: 'vda', offsetBytes: 7n, sizeBytes: 9n }],
    })
    site.world.verifyReport = verifyReport
    site.world.failSession = new BackupError('BLOCK_CORRUPT', 'damaged')
    const request = schedule.StartVerifyRequest.fromPartial({
      ...{ repository: 'repositories/nightly', level: move.VerifyLevel.BLOCKS },
      bytesPerSecond: 5n,
    })
    const last = await ended(client, (await client.startVerify(request)).run)
    expect(last).toMatchObject({ state: State.FAILED, verifyReport })
    expect(site.world.verifications.at(-1)).toEqual({
      ...{ parent: 'repositories/nightly' },
      ...{ provenBackups: ['never', 'old'], damagedBackups: ['new'] },
    })
    expect(site.world.verified.at(-1)).toMatchObject({
      ...{ level: move.VerifyLevel.BLOCKS, bytesPerSecond: 5n, backupId: '' },
      firstBackupIds: ['never', 'old', 'new'],
    })
  })
})
