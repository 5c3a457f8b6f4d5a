// A differential restore: what is written against what differs, and what is left when processes
// are killed in the middle of it.
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { monotonicMs, sleep } from '@blockferry/core'
import { asBackupError } from '@blockferry/errors'
import { backup, schedule, snapshot } from '@blockferry/proto'
import { Lab, Random, type ServiceName, serviceNames, succeeded } from '@blockferry/testkit'
import { ParkedSite } from './parked_site.ts'
import { check, type Row, type Scenario, type ScenarioOptions, Tally } from './row.ts'

const { SUCCEEDED } = schedule.Run_State

/** Who is killed: services by name, or the storage daemon that writes the qcow2 image. */
type Victim = ServiceName[] | 'daemon'

const victims: { name: string; victim: Victim }[] = [
  { name: 'mover killed', victim: ['move'] },
  { name: 'every service killed', victim: [...serviceNames] },
  { name: 'storage daemon killed', victim: 'daemon' },
  { name: 'mover and schedule killed', victim: ['move', 'schedule'] },
]

async function run(options: ScenarioOptions): Promise<Row[]> {
  const { runs, seed, folder, tell } = options
  const random = new Random(seed)
  const rows: Row[] = []
  {
    await using site = await ParkedSite.start(join(folder, 'p'), random)
    rows.push(await oneDayOld(site, random, seed))
    rows.push(...(await killed(site, random, { runs, seed, tell })))
  }
  rows.push(await trackedAfterwards(join(folder, 'g'), seed))
  return rows
}

/** Written against different bytes, through the command. */
async function oneDayOld(site: ParkedSite, random: Random, seed: number): Promise<Row> {
  const tally = new Tally('differential', 'one-day-old image', seed)
  let figures: Record<string, number> = {}
  await tally.try('restore', async () => {
    await site.vm.age(random)
    await site.vm.keep('old')
    const differing = await site.vm.bytesBetween('old', 'wanted')
    const startMs = monotonicMs()
    const disks = await site.restoreByCommand()
    const ms = Math.round(monotonicMs() - startMs)
    const written = disks.reduce((sum, disk) => sum + disk.stored_bytes, 0)
    const compared = disks.reduce((sum, disk) => sum + disk.compared_bytes, 0)
    figures = { differing_bytes: differing, written_bytes: written, compared_bytes: compared, ms }
    await site.expectRestored()
    check(differing > 0 && written >= differing, `wrote ${written} of ${differing} bytes`)
    check(written <= differing * 1.01, `wrote ${written} bytes where ${differing} differ`)
    return true
  })
  return tally.row(figures)
}

async function killed(
  site: ParkedSite,
  random: Random,
  { runs, seed, tell }: Pick<ScenarioOptions, 'runs' | 'seed' | 'tell'>,
): Promise<Row[]> {
  const tallies = victims.map(({ name }) => new Tally('differential', name, seed))
  const torn = victims.map(() => 0)
  const { markingMs, markedMs } = await measure(site, random)
  for (let index = 0; index < runs; index++) {
    const which = index % victims.length
    const { name, victim } = victims[which] as (typeof victims)[number]
    // Relative to the moment at which both images are marked.
    const momentMs = random.below(markingMs + markedMs) - markingMs
    tell(`${index + 1} of ${runs}: ${name} at ${momentMs} of ${markedMs} ms`)
    await (tallies[which] as Tally).try(`kill ${index + 1} at ${momentMs} ms`, async () => {
      await site.vm.spoil(random)
      await site.vm.keep('old')
      const restore = await site.startRestore()
      await site.untilMoving(restore)
      if (momentMs < 0) await sleep(momentMs + markingMs)
      else {
        await site.untilMarked(restore)
        await sleep(momentMs)
      }
      const halfway = await killAndLook(site, victim)
      if (halfway === 'torn') torn[which] = (torn[which] ?? 0) + 1
      if (victim === 'daemon') await expectRefused(site, restore)
      else for (const service of victim) await site.stand.startService(service)
      const ended = await site.stand.runEnd(restore, 180_000)
      // A daemon that is gone ends the run; whoever asks again goes on where it ended.
      if (victim === 'daemon' && ended.state !== SUCCEEDED) {
        succeeded(await site.stand.runEnd(await site.startRestore()))
      } else succeeded(ended)
      await site.expectRestored()
      return halfway !== 'whole'
    })
  }
  return tallies.map((tally, which) =>
    tally.row({ marking_ms: markingMs, marked_ms: markedMs, torn_images: torn[which] ?? 0 }),
  )
}

/** How long a restore takes that is left alone: until both images are marked, and from there on. */
async function measure(
  site: ParkedSite,
  random: Random,
): Promise<{ markingMs: number; markedMs: number }> {
  await site.vm.spoil(random)
  const restore = await site.startRestore()
  await site.untilMoving(restore)
  const startMs = monotonicMs()
  await site.untilMarked(restore)
  const markMs = monotonicMs()
  while (site.marked().length > 0) await sleep(1)
  const endMs = monotonicMs()
  succeeded(await site.stand.runEnd(restore))
  // Most of the moments shall be those in which images change.
  const markingMs = Math.min(Math.ceil(markMs - startMs), Math.ceil((endMs - markMs) / 4))
  return { markingMs, markedMs: Math.ceil(endMs - markMs) }
}

/**
 * Kills, and tells how the images were left: `whole`, `marked`, or `torn`: marked, and neither what
 * they were nor what was backed up. Without marks on all of them they have to be whole.
 */
async function killAndLook(site: ParkedSite, victim: Victim): Promise<'whole' | 'marked' | 'torn'> {
  if (victim === 'daemon') {
    const daemons = await site.vm.daemons()
    for (const pid of daemons) process.kill(pid, 'SIGKILL')
    if (daemons.length === 0) return 'whole'
    // The raw image may still be written: the mover stops when it learns of the other.
    return site.marked().length > 0 ? 'marked' : 'whole'
  }
  await Promise.all(victim.map((service) => site.stand.signal(service, 'SIGKILL')))
  await site.vm.untilLetGo()
  const marked = site.marked()
  const unlikeOld = await site.vm.differFrom('old')
  const unlikeWanted = await site.vm.differFrom('wanted')
  const whole = unlikeOld.length === 0 || unlikeWanted.length === 0
  if (marked.length === site.vm.disks.length) return whole ? 'marked' : 'torn'
  // Marks are made before the first byte and go after the last one, for all images together.
  check(whole, `${marked.length} marks, but ${unlikeOld} changed and ${unlikeWanted} differ`)
  return 'whole'
}

/** While images are half restored, no backup of them is made. */
async function expectRefused(site: ParkedSite, restore: string): Promise<void> {
  const ended = await site.stand.runEnd(restore)
  if (ended.state === SUCCEEDED) return
  check(ended.error?.reason === 'TARGET_WRITE_FAILED', `failed with ${ended.error?.reason}`)
  if (site.marked().length === 0) return
  const vms = await site.stand.snapshot.getVm({ name: site.vm.name })
  check(vms.vm?.refusalReason === 'RESTORE_INCOMPLETE', `noted as ${vms.vm?.refusalReason}`)
  const refused = await site.backUp().catch((thrown) => asBackupError(thrown)?.reason)
  check(refused === 'RESTORE_INCOMPLETE', `a backup was not refused: ${JSON.stringify(refused)}`)
}

/** The next backup counts from the backup that was restored, and is right. */
async function trackedAfterwards(folder: string, seed: number): Promise<Row> {
  const tally = new Tally('differential', 'next backup counts from the restored one', seed)
  await tally.try('restore and back up', async () => {
    await using lab = await Lab.start({ folder })
    const full = await lab.backUp(backup.Level.FULL)
    await lab.guest.sh('dd if=/dev/urandom of=/data/0/later bs=1M count=9 && sync')
    await lab.backUp(backup.Level.INCREMENTAL)
    await lab.guest.sh('rm /data/0/later; dd if=/dev/urandom of=/data/1/x bs=1M count=5; sync')
    await lab.guest.stop()
    const { run: started } = await lab.stand.schedule.startRestore(
      schedule.StartRestoreRequest.create({
        backup: full.backup,
        inPlace: true,
        confirmInPlace: true,
        differential: true,
      }),
    )
    succeeded(await lab.stand.runEnd(started?.name ?? ''))
    await lab.bootAgain()
    await lab.guest.sh('dd if=/dev/urandom of=/data/1/after bs=64k count=20 && sync')
    await expectNoted(lab)
    const made = await lab.backUp(backup.Level.INCREMENTAL)
    const decisions = made.decisions.map(({ decision }) => decision)
    check(decisions.includes('CHANGED_BLOCKS_USED'), `read everything: ${decisions}`)
    const { backup: stored } = await lab.stand.catalog.getBackup({ name: made.backup })
    check(
      full.backup.endsWith(`/${stored?.baseBackup}`),
      `the base is ${stored?.baseBackup}, restored was ${full.backup}`,
    )
    const references = lab.references.get(made.pointId) ?? []
    check(references.length === 2, `${references.length} references`)
    const different = await lab.differences(made.backup, references)
    check(different.length === 0, `${different} restored otherwise than nbdcopy read it`)
    return true
  })
  return tally.row()
}

/** A machine that was started from a half restored image is noted while it runs. */
async function expectNoted(lab: Lab): Promise<void> {
  const { vm: before } = await lab.stand.snapshot.getVm({ name: lab.vmName })
  const mark = `${before?.disks[0]?.location}.restore-incomplete`
  await writeFile(mark, '')
  const { vm } = await lab.stand.snapshot.getVm({ name: lab.vmName })
  await rm(mark)
  check(vm?.state === snapshot.VmState.RUNNING, `the machine is ${vm?.state}`)
  check(vm.refusalReason === 'RESTORE_INCOMPLETE', `noted as "${vm.refusalReason}"`)
}

export const differential: Scenario = {
  name: 'differential',
  summary: 'differential restore: bytes written, kills in the middle, the next backup',
  runsFull: 20,
  runsReduced: 2,
  run,
}
