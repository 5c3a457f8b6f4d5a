// An installation with one machine that is off and one backup of it.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { monotonicMs, sleep } from '@blockferry/core'
import { restoreMarkPath } from '@blockferry/hypervisor'
import { schedule, snapshot } from '@blockferry/proto'
import { type Random, Stand, succeeded } from '@blockferry/testkit'
import { ParkedVm } from './parked_vm.ts'
import { check } from './row.ts'

const execute = promisify(execFile)
const command = fileURLToPath(new URL('../../apps/blockferry/src/main.ts', import.meta.url))
const { SUCCEEDED } = schedule.Run_State

/** What the command prints of a disk. */
interface DiskJson {
  stored_bytes: number
  compared_bytes: number
}

export class ParkedSite implements AsyncDisposable {
  readonly stand: Stand
  readonly vm: ParkedVm
  backup = ''

  private constructor(stand: Stand, vm: ParkedVm) {
    this.stand = stand
    this.vm = vm
  }

  /** One backup of the machine, whose content is kept as `wanted`. */
  static async start(folder: string, random: Random): Promise<ParkedSite> {
    const vm = await ParkedVm.create(folder, random)
    const stand = await Stand.start({ folder })
    const site = new ParkedSite(stand, vm)
    await stand.snapshot.createHost(
      snapshot.CreateHostRequest.create({
        hostId: 'parked',
        host: { platform: { $case: 'folder', value: { folder: vm.imageFolder } } },
      }),
    )
    await stand.catalog.createRepository({
      repositoryId: 'main',
      folder: join(folder, 'repository'),
      adopt: false,
      requestId: '',
      passphraseFile: '',
    })
    site.backup = (await site.backUp()).backup
    await vm.keep('wanted')
    return site
  }

  async backUp(): Promise<schedule.Run> {
    const { run } = await this.stand.schedule.startBackup(
      schedule.StartBackupRequest.create({ vm: this.vm.name, repository: 'repositories/main' }),
    )
    return succeeded(await this.stand.runEnd(run?.name ?? ''))
  }

  /** As a user does it. */
  async restoreByCommand(): Promise<DiskJson[]> {
    const { stdout } = await execute(process.execPath, [
      ...['--disable-warning=ExperimentalWarning', '--conditions=@blockferry/source', command],
      ...['restore', this.backup, '--in-place', '--differential', '--yes'],
      ...['--output', 'json', '--state', this.stand.folder],
    ])
    return (JSON.parse(stdout) as { disks: DiskJson[] }).disks
  }

  async startRestore(): Promise<string> {
    const { run } = await this.stand.schedule.startRestore(
      schedule.StartRestoreRequest.create({
        backup: this.backup,
        inPlace: true,
        confirmInPlace: true,
        differential: true,
      }),
    )
    return run?.name ?? ''
  }

  /** Until the mover has the run: it waits for a tick of schedule first. */
  async untilMoving(name: string): Promise<void> {
    const startMs = monotonicMs()
    for (;;) {
      const { run: seen } = await this.stand.schedule.getRun({ name })
      if ((seen?.state ?? 0) >= schedule.Run_State.MOVING) return
      check(monotonicMs() - startMs < 30_000, `${name} does not begin`)
      await sleep(5)
    }
  }

  /** Until all images are marked, or the restore has ended all the same. */
  async untilMarked(name: string): Promise<void> {
    while (this.marked().length < this.vm.disks.length) {
      const { run: seen } = await this.stand.schedule.getRun({ name })
      if ((seen?.state ?? 0) >= SUCCEEDED) return
      await sleep(1)
    }
  }

  marked(): string[] {
    const paths = this.vm.disks.map(({ path }) => path)
    return paths.filter((path) => existsSync(restoreMarkPath(path)))
  }

  /** The machine holds the backup, and nothing says otherwise. */
  async expectRestored(): Promise<void> {
    await this.vm.untilLetGo()
    const different = await this.vm.differFrom('wanted')
    check(different.length === 0, `${different} is not what was backed up`)
    check(this.marked().length === 0, `marked although restored: ${this.marked()}`)
    const { vm } = await this.stand.snapshot.getVm({ name: this.vm.name })
    check(vm?.refusalReason === '', `refused: ${vm?.refusalMessage}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stand[Symbol.asyncDispose]()
  }
}
