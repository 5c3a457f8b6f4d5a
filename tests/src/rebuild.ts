// The database and everything else outside the repository's folder is lost. The catalog
// that is rebuilt says the same, field by field, and the backups restore.
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { backup, catalog, schedule } from '@blockferry/proto'
import { Lab, serviceNames } from '@blockferry/testkit'
import { check, type Row, type Scenario, type ScenarioOptions, Tally } from './row.ts'

const page = { pageSize: 1000, pageToken: '' }

async function run({ runs, seed, folder, tell }: ScenarioOptions): Promise<Row[]> {
  await using lab = await Lab.start({ folder, guest: { append: 'writer=1' } })
  const tally = new Tally('rebuild', 'catalog from the repository alone', seed)
  for (let index = 0; index < runs; index++) {
    tell(`loss ${index + 1} of ${runs}`)
    await tally.try(`loss ${index + 1}`, async () => {
      const policy = `nightly-${index}`
      await lab.stand.schedule.createPolicy(
        schedule.CreatePolicyRequest.create({
          policyId: policy,
          policy: { vms: [lab.vmName], repository: 'repositories/main' },
        }),
      )
      const { runs: started } = await lab.stand.schedule.startPolicy({
        name: `policies/${policy}`,
        requestId: '',
      })
      check(started.length === 1, `${started.length} runs`)
      const made = await lab.stand.runEnd(started[0]?.name ?? '')
      check(made.state === schedule.Run_State.SUCCEEDED, made.error?.message ?? '')
      await lab.backUp(backup.Level.INCREMENTAL)
      const before = await listing(lab)
      check(before.length > 2, 'nothing to compare')
      check(before.includes(policy), 'the policy is not in the listing')

      await loseEverything(lab)
      await lab.addHostAndRepository(true)
      await lab.stand.catalog.rebuildCatalog({ name: 'repositories/main' })
      const after = await listing(lab)
      check(after === before, `the catalog differs:\n${before}\n${after}`)
      const references = lab.references.get(made.pointId) ?? []
      const different = await lab.differences(made.backup, references)
      check(different.length === 0, `${different} restored otherwise than nbdcopy read it`)
      return true
    })
  }
  return [tally.row()]
}

/** What the catalog says of VMs and backups, as text. */
async function listing(lab: Lab): Promise<string> {
  const { backups } = await lab.stand.catalog.listBackups({
    ...{ parent: '', vm: '', showRemoved: false },
    ...page,
  })
  const { vms } = await lab.stand.catalog.listProtectedVms(page)
  return JSON.stringify([
    vms.map((vm) => catalog.ProtectedVm.toJSON(vm)),
    backups.map((one) => backup.Backup.toJSON(one)),
  ])
}

async function loseEverything(lab: Lab): Promise<void> {
  for (const name of [...serviceNames].reverse()) await lab.stand.stopService(name)
  await lab.stand.replaceDatabase()
  // The machine, its host's sockets and the references are not ours to lose.
  const kept = new Set(['repository', 'vms', 'references', 'postgres', 'run'])
  for (const name of await readdir(lab.folder)) {
    if (!kept.has(name)) await rm(join(lab.folder, name), { recursive: true })
  }
  await Promise.all(serviceNames.map((name) => lab.stand.startService(name)))
}

export const rebuild: Scenario = {
  name: 'rebuild',
  summary: 'database and state lost: the catalog comes back from the repository',
  runsFull: 3,
  runsReduced: 1,
  run,
}
