import { sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { move, schedule } from '@blockferry/proto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { newRequestId } from './doubles.ts'
import { ended, eventually, Site } from './site.ts'

const State = schedule.Run_State
let site: Site
let client: Awaited<ReturnType<Site['schedule']>>

beforeAll(async () => {
  site = await Site.open()
  await site.begin()
  client = await site.schedule()
})
afterAll(async () => {
  await site?.end()
  await site?.close()
})
afterEach(() => site.forget())

const backup = (given: object = {}) =>
  schedule.StartBackupRequest.fromPartial({ vm: 'vm1', ...given })
const restore = (given: object) =>
  schedule.StartRestoreRequest.fromPartial({
    backup: 'repositories/nightly/backups/b',
    targetFolder: '/t',
    ...given,
  })
const policy = (given: object = {}) =>
  schedule.Policy.fromPartial({ vms: ['vm1'], repository: 'repositories/nightly', ...given })
const create = (given: object, policyId = 'p') =>
  client.createPolicy({ policyId, policy: policy(given), requestId: '' })
const extents = (...pairs: [number, number][]) =>
  pairs.map(([offset, size]) => ({ byteOffset: BigInt(offset), sizeBytes: BigInt(size) }))

describe('bad input', () => {
  const cases: [string, string, () => Promise<unknown>][] = [
    ['no VM', 'vm', () => client.startBackup(backup({ vm: '' }))],
    ['a blank VM', 'vm', () => client.startBackup(backup({ vm: ' \n' }))],
    ['a VM with NUL', 'vm', () => client.startBackup(backup({ vm: 'a\0b' }))],
    ['a VM name without end', 'vm', () => client.startBackup(backup({ vm: 'x'.repeat(5_000) }))],
    ['a repository path', 'repository', () => client.startBackup(backup({ repository: '/tmp/x' }))],
    [
      'a repository that climbs',
      'repository',
      () => client.startBackup(backup({ repository: 'repositories/a/../b' })),
    ],
    ['a relative image', 'images', () => client.startBackup(backup({ images: ['disk.qcow2'] }))],
    ['an image that climbs', 'images', () => client.startBackup(backup({ images: ['/a/../b'] }))],
    ['one image twice', 'images', () => client.startBackup(backup({ images: ['/a', '/a/'] }))],
    ['an unknown level', 'level', () => client.startBackup(backup({ level: 9 }))],
    [
      'an unknown codec',
      'compression.codec',
      () => client.startBackup(backup({ compression: { codec: 9 } })),
    ],
    [
      'a level of zstd that does not exist',
      'policy.compression.level',
      () => create({ compression: { codec: move.Compression_Codec.ZSTD, level: 20 } }),
    ],
    ['a level of LZ4', 'policy.compression.level', () => create({ compression: { level: 1 } })],
    [
      'a base without changes',
      'base_backup',
      () => client.startBackup(backup({ baseBackup: 'b' })),
    ],
    [
      'changes without a base',
      'base_backup',
      () => client.startBackup(backup({ suppliedChanges: [{ disk: '', extents: [] }] })),
    ],
    [
      'changes that overlap',
      'supplied_changes.extents',
      () =>
        client.startBackup(
          backup({
            baseBackup: 'b',
            suppliedChanges: [{ disk: '', extents: extents([0, 10], [5, 10]) }],
          }),
        ),
    ],
    [
      'changes of one disk twice',
      'supplied_changes.disk',
      () =>
        client.startBackup(
          backup({ baseBackup: 'b', suppliedChanges: [{ disk: 'd' }, { disk: 'd' }] }),
        ),
    ],
    [
      'a request id without end',
      'request_id',
      () => client.startBackup(backup({ requestId: 'x'.repeat(129) })),
    ],
    ['a backup that is no name', 'backup', () => client.startRestore(restore({ backup: 'b' }))],
    [
      'a relative folder',
      'target_folder',
      () => client.startRestore(restore({ targetFolder: 'x' })),
    ],
    ['no folder', 'target_folder', () => client.startRestore(restore({ targetFolder: '' }))],
    [
      'a folder that climbs',
      'target_folder',
      () => client.startRestore(restore({ targetFolder: '/a/../b' })),
    ],
    ['a folder in place', 'target_folder', () => client.startRestore(restore({ inPlace: true }))],
    [
      'a differential restore to a folder',
      'differential',
      () => client.startRestore(restore({ differential: true })),
    ],
    ['an unknown format', 'format', () => client.startRestore(restore({ format: 7 }))],
    ['one disk twice', 'disks', () => client.startRestore(restore({ disks: ['a', 'a'] }))],
    [
      'a backup to verify',
      'backup',
      () => client.startVerify(schedule.StartVerifyRequest.fromPartial({})),
    ],
    [
      'stored bytes of a backup',
      'level',
      () =>
        client.startVerify(
          schedule.StartVerifyRequest.fromPartial({
            ...{ backup: 'repositories/r/backups/b', level: move.VerifyLevel.STORED },
          }),
        ),
    ],
    ['a policy without VMs', 'policy.vms', () => create({ vms: [] })],
    ['a policy with a VM twice', 'policy.vms', () => create({ vms: ['a', 'a'] })],
    ['a policy without repository', 'policy.repository', () => create({ repository: '' })],
    [
      'a repeat below a minute',
      'policy.repeat_duration',
      () => create({ repeatDuration: { seconds: 59n } }),
    ],
    [
      'a negative repeat',
      'policy.repeat_duration',
      () => create({ repeatDuration: { seconds: -90n } }),
    ],
    ['a policy id with a slash', 'policy_id', () => create({}, 'a/b')],
    ['a policy id with a newline', 'policy_id', () => create({}, 'a\n')],
    ['no policy', 'policy', () => client.updatePolicy({ policy: undefined })],
    ['a run that is no name', 'name', () => client.getRun({ name: 'x' })],
    [
      'a negative page',
      'page_size',
      () => client.listRuns({ vm: '', pageSize: -1, pageToken: '', activeOnly: false }),
    ],
    ['a made-up token', 'page_token', () => client.listPolicies({ pageSize: 0, pageToken: 'x' })],
  ]

  it.each(cases)('%s is refused naming %s', async (_, field, call) => {
    await expect(call()).rejects.toMatchObject({ reason: 'ARGUMENT_INVALID', metadata: { field } })
    const { rows } = await site.pool.query('SELECT run_id FROM schedule.runs')
    expect(rows).toEqual([])
  })

  it.each([
    ['GetRun', () => client.getRun({ name: 'runs/none' })],
    ['CancelRun', () => client.cancelRun({ name: 'runs/none' })],
    [
      'WatchRun',
      async () => {
        for await (const _ of client.watchRun({ name: 'runs/none' }));
      },
    ],
    ['GetPolicy', () => client.getPolicy({ name: 'policies/none' })],
    ['DeletePolicy', () => client.deletePolicy({ name: 'policies/none' })],
    ['StartPolicy', () => client.startPolicy({ name: 'policies/none', requestId: '' })],
    ['StartBackup', () => client.startBackup(backup({ repository: 'repositories/none' }))],
  ] as [string, () => Promise<unknown>][])(
    '%s of what there is not is NOT_FOUND',
    async (_, call) => {
      await expect(call()).rejects.toMatchObject({ reason: 'NOT_FOUND' })
    },
  )

  it('tells an unknown VM and one that cannot be backed up by its own reason', async () => {
    await expect(client.startBackup(backup({ vm: 'x/\n"ü' }))).rejects.toMatchObject({
      reason: 'VM_NOT_FOUND',
    })
    const vm = site.world.vms.get('vm1')
    if (vm) Object.assign(vm, { refusalReason: 'VM_WITHOUT_UUID', refusalMessage: 'add -uuid' })
    await expect(client.startBackup(backup())).rejects.toMatchObject({ reason: 'VM_WITHOUT_UUID' })
  })
})

describe('request_id', () => {
  it('gives the same run to calls at the same time and to later ones, also when the VM is gone', async () => {
    const requestId = newRequestId()
    const calls = Array.from({ length: 8 }, () => client.startBackup(backup({ requestId })))
    const names = (await Promise.all(calls)).map(({ run }) => run?.name)
    expect(new Set(names).size).toBe(1)
    site.world.vms.clear()
    const again = await client.startBackup(backup({ requestId }))
    expect(again.run?.name).toBe(names[0])
  })

  it('gives the same runs and the same policy', async () => {
    site.world.addVm('vm2')
    const requestId = newRequestId()
    const asked = { policyId: 'p', policy: policy({ vms: ['vm1', 'vm2'] }), requestId }
    const { policy: made } = await client.createPolicy(asked)
    expect((await client.createPolicy(asked)).policy).toEqual(made)
    await expect(client.createPolicy({ ...asked, requestId: 'other' })).rejects.toMatchObject({
      reason: 'ALREADY_EXISTS',
    })
    const first = await client.startPolicy({ name: 'policies/p', requestId })
    const second = await client.startPolicy({ name: 'policies/p', requestId })
    expect(first.runs).toHaveLength(2)
    expect(second.runs.map(({ name }) => name)).toEqual(first.runs.map(({ name }) => name))
  })
})

describe('one VM', () => {
  it('has one backup at a time: the second is VM_BUSY and names the first', async () => {
    site.world.movingMs = 500
    const { run } = await client.startBackup(backup())
    await expect(client.startBackup(backup())).rejects.toMatchObject({
      reason: 'VM_BUSY',
      metadata: { owner: run?.name },
    })
    await ended(client, run)
    expect((await client.startBackup(backup())).run?.state).toBe(State.QUEUED)
  })
})

describe('policies', () => {
  it('have a next time unless they are paused or only by hand, and keep their rhythm', async () => {
    const hour = { seconds: 3_600n, nanos: 0 }
    const { policy: made } = await create({ repeatDuration: hour })
    expect(made?.nextRunTime).toBeInstanceOf(Date)
    const same = await client.updatePolicy({
      policy: policy({ name: 'policies/p', repeatDuration: hour, level: 1 }),
    })
    expect(same.policy?.nextRunTime).toEqual(made?.nextRunTime)
    const paused = await client.updatePolicy({
      policy: policy({ name: 'policies/p', repeatDuration: hour, paused: true }),
    })
    expect(paused.policy?.nextRunTime).toBeUndefined()
    const byHand = await client.updatePolicy({ policy: policy({ name: 'policies/p' }) })
    expect(byHand.policy).toMatchObject({ nextRunTime: undefined, repeatDuration: undefined })
  })

  it('compress their runs as they say', async () => {
    const compression = { codec: move.Compression_Codec.ZSTD, level: 9 }
    expect((await create({ compression })).policy?.compression).toEqual(compression)
    const { runs } = await client.startPolicy({ name: 'policies/p', requestId: '' })
    await ended(client, runs[0])
    const moved = [...site.world.sessions.values()].at(-1)
    expect(moved?.request?.compression).toEqual(compression)
    const { policy: lz4 } = await client.updatePolicy({ policy: policy({ name: 'policies/p' }) })
    expect(lz4?.compression).toEqual({ codec: move.Compression_Codec.LZ4, level: 0 })
  })

  it('hold up no other run while the hosts do not answer', async () => {
    const { run: first } = await client.startBackup(backup())
    const { backup: name } = await ended(client, first)
    const answer = new AbortController()
    let asked = false
    site.world.interfere = async (moment, called) => {
      if (moment !== 'before' || called !== 'getVm') return
      asked = true
      await sleep(60_000, answer.signal)
    }
    await create({ repeatDuration: { seconds: 3_600n, nanos: 0 } })
    await site.pool.query('UPDATE schedule.policies SET next_run_time = now()')
    await eventually('the policy is due', () => asked)
    const { run } = await client.startVerify(
      schedule.StartVerifyRequest.fromPartial({ backup: name }),
    )
    expect((await ended(client, run)).state).toBe(State.SUCCEEDED)
    site.world.interfere = () => {}
    answer.abort(new BackupError('SERVICE_UNREACHABLE', 'silenced'))
  })

  it('and runs are listed page by page', async () => {
    for (const id of ['a', 'b', 'c']) await create({}, id)
    const first = await client.listPolicies({ pageSize: 2, pageToken: '' })
    const second = await client.listPolicies({ pageSize: 2, pageToken: first.nextPageToken })
    expect([...first.policies, ...second.policies].map(({ name }) => name)).toEqual([
      'policies/a',
      'policies/b',
      'policies/c',
    ])
    expect(second.nextPageToken).toBe('')
  })
})
