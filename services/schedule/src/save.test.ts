import { hostname } from 'node:os'
import { durationFromMs, schedule, snapshot } from '@blockferry/proto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { State } from './run_row.ts'
import { ended, eventually, Site } from './site.ts'

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

const save = async () => {
  const { run } = await client.startSave({ repository: 'repositories/nightly', requestId: '' })
  return await ended(client, run)
}
const saves = () =>
  site.world.manifests.filter(({ vmIdentity }) => vmIdentity.startsWith('blockferry:installation/'))

describe('a save', () => {
  it('holds all hosts, policies and repositories, and is a backup in the catalog', async () => {
    const host = snapshot.Host.fromPartial({
      name: 'hosts/a',
      platform: { $case: 'folder', value: { folder: '/f' } },
    })
    site.world.hosts = [host, snapshot.Host.fromPartial({ name: 'hosts/b' })]
    const policy = schedule.Policy.fromPartial({
      ...{ vms: ['vm1'], repository: 'repositories/nightly', tags: ['gold'] },
      repeatDuration: durationFromMs(3_600_000),
    })
    for (const policyId of ['p', 'q'])
      await client.createPolicy({ policyId, policy, requestId: '' })
    const run = await save()
    expect(run.error).toBeUndefined()
    expect(run).toMatchObject({ kind: schedule.Run_Kind.SAVE, state: State.SUCCEEDED })
    const [saved] = saves()
    const installation = schedule.Installation.fromJSON(JSON.parse(saved?.vmConfigJson ?? ''))
    expect(installation.hosts).toEqual(site.world.hosts)
    expect(installation.policies).toMatchObject([
      { ...{ name: 'policies/p', vms: ['vm1'], tags: ['gold'] }, createTime: expect.any(Date) },
      { name: 'policies/q' },
    ])
    expect(installation.machine).toBe(hostname())
    expect(installation.repositories).toEqual([site.world.repository])
    expect(site.world.recorded).toContain(run.backup)
  })

  it('goes on, and is made once, when its service ended in mid-commit', async () => {
    const before = saves().length
    site.world.committingMs = 1_000
    const { run } = await client.startSave({ repository: '', requestId: '' })
    await eventually('its commit', async () => {
      const { run: now } = await client.getRun({ name: run?.name ?? '' })
      return now?.state === State.COMMITTING
    })
    site.world.committingMs = 0
    await client[Symbol.asyncDispose]()
    client = await site.schedule()
    expect(await ended(client, run)).toMatchObject({ state: State.SUCCEEDED })
    expect(saves()).toHaveLength(before + 1)
  })

  it('leaves the last 14 and removes older ones', async () => {
    const before = saves().length
    for (let count = 0; count < 16; count++) await save()
    const older = saves().slice(before, before + 2)
    // Counted anew, since the double lists what was removed all the same.
    expect(new Set(site.world.removed)).toEqual(
      new Set(older.map(({ name }) => `repositories/nightly/${name}`)),
    )
  })

  it('fails when it is larger than a listing could give back', async () => {
    const name = 'v'.repeat(250)
    const monitorSockets = Array.from({ length: 16_000 }, (_, count) => `/${name}${count}`)
    const value = { monitorFolder: '', fleeceFolder: '', monitorSockets }
    site.world.hosts = [
      snapshot.Host.fromPartial({ name: 'hosts/a', platform: { $case: 'qemu', value } }),
    ]
    const before = saves().length
    const { error } = await save()
    expect(error).toMatchObject({ reason: 'ARGUMENT_INVALID', metadata: { field: 'policies' } })
    expect(saves()).toHaveLength(before)
    site.world.hosts = []
  })

  it('is refused as the name of images', async () => {
    const request = schedule.StartBackupRequest.fromPartial({ images: ['/i'] })
    const taken = client.startBackup({ ...request, vm: 'blockferry:installation/1' })
    await expect(taken).rejects.toMatchObject({ metadata: { field: 'vm' } })
  })
})
