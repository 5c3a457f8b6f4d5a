// What a program of somebody else's can do with the API, having read nothing of our source.
import { Lab } from '@blockferry/testkit'
import { detailsOf, StrangersClient } from './client.ts'
import { check, type Row, type Scenario, type ScenarioOptions, Tally } from './row.ts'

interface RunShape {
  name: string
  state: string
  error: { reason: string } | null
}

const final = new Set(['STATE_SUCCEEDED', 'STATE_FAILED', 'STATE_CANCELLED'])

async function run({ runs, seed, folder, tell }: ScenarioOptions): Promise<Row[]> {
  await using lab = await Lab.start({ folder, guest: { append: 'writer=1' } })
  const learn = (service: 'schedule' | 'snapshot', name: string) =>
    StrangersClient.learn(lab.stand.address(service), `blockferry.${service}.v1.${name}`)
  using snapshot = await learn('snapshot', 'SnapshotService')
  using schedule = await learn('schedule', 'ScheduleService')

  const watched = async (name: string): Promise<RunShape[]> => {
    const seen: RunShape[] = []
    for await (const { run } of schedule.watch('WatchRun', { name })) seen.push(run as RunShape)
    return seen
  }
  const start = async (request: object) =>
    (await schedule.call('StartBackup', request)).run as RunShape

  const tally = new Tally('stranger', 'lists, starts, watches, cancels, reads an error', seed)
  for (let index = 0; index < runs; index++) {
    tell(`${index + 1} of ${runs}`)
    await tally.try(`round ${index + 1}`, async () => {
      const { vms } = (await snapshot.call('ListVms', {})) as {
        vms: { display_name: string; name: string; disks: unknown[] }[]
      }
      const vm = vms.find(({ display_name }) => display_name === lab.vmName)
      check(vm?.disks.length === 2, `lists ${JSON.stringify(vms)}`)

      const first = await start({ vm: vm.name, request_id: `stranger-${seed}-${index}` })
      const again = await start({ vm: vm.name, request_id: `stranger-${seed}-${index}` })
      check(first.name === again.name, 'the same request_id made two runs')
      const seen = await watched(first.name)
      check(seen.at(-1)?.state === 'STATE_SUCCEEDED', `ended ${JSON.stringify(seen.at(-1))}`)
      check(seen.length > 1, 'the watch sent only one state')

      const second = await start({ vm: vm.name, level: 'LEVEL_FULL' })
      await schedule.call('CancelRun', { name: second.name })
      const end = (await watched(second.name)).at(-1)
      check(final.has(end?.state ?? ''), `the watch ended in ${end?.state}`)
      check(end?.state === 'STATE_CANCELLED', `ended ${end?.state}`)

      const error = await start({ vm: 'nobody\n/../ü' }).then(
        () => null,
        (thrown) => detailsOf(thrown),
      )
      check(error?.reason === 'VM_NOT_FOUND', `reason ${error?.reason}`)
      check(error.domain === 'blockferry.dev' && error.code === 5, JSON.stringify(error))
      check(error.message.length > 20, `no advice in ${error.message}`)
      return true
    })
  }
  return [tally.row()]
}

export const stranger: Scenario = {
  name: 'stranger',
  summary: 'a client of grpc-js and reflection alone',
  runsFull: 5,
  runsReduced: 1,
  run,
}
