import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { monotonicMs, sleep } from '@blockferry/core'
import { backup, move, msFromDuration, type schedule } from '@blockferry/proto'
import {
  buildGuest,
  fileSystemDamage,
  flipByte,
  Lab,
  type Reference,
  sameContent,
  serviceNames,
} from '@blockferry/testkit'
import type { BackupReport, Report, RestoreReport } from './report.ts'

export type Damage = 'reference' | 'pack' | null

export interface DemoOptions {
  damage: Damage
  signal: AbortSignal
  /** Told what happens, a sentence at a time. */
  tell: (text: string) => void
}

export class Demo {
  readonly folder: string
  #damage: Damage
  #signal: AbortSignal
  #lab: Lab | undefined

  #tell: (text: string) => void

  private constructor(folder: string, options: DemoOptions) {
    this.folder = folder
    this.#damage = options.damage
    this.#signal = options.signal
    this.#tell = options.tell
  }

  static async create(options: DemoOptions): Promise<Demo> {
    // Short, because unix sockets lie in it.
    return new Demo(await mkdtemp('/tmp/bf-demo-'), options)
  }

  async run(): Promise<Report> {
    const startMs = monotonicMs()
    await buildGuest()
    this.#say('The guest is built; starting PostgreSQL, the four services and the machine.')
    const setUpMs = monotonicMs() - startMs
    const lab = await Lab.start({ folder: this.folder })
    this.#lab = lab
    const bootMs = monotonicMs() - startMs - setUpMs
    this.#say('The machine runs and writes to both disks five times a second.')

    await lab.guest.sh('dd if=/dev/urandom of=/data/0/before bs=1M count=24 && sync', 60_000)
    await lab.guest.sh('dd if=/dev/zero of=/data/1/zeroes bs=1M count=8 && sync', 60_000)
    this.#say('A full backup while the guest writes …')
    const full = await lab.backUp(backup.Level.FULL)
    await lab.guest.sh('dd if=/dev/urandom of=/data/0/between bs=1M count=3 && sync', 60_000)
    await lab.guest.sh('rm /data/1/zeroes; echo changed > /data/1/note; sync', 60_000)
    this.#say('An incremental backup while the guest writes …')
    const incremental = await lab.backUp(backup.Level.INCREMENTAL)
    await lab.guest.sh('rm /data/0/before && sync', 60_000)

    if (this.#damage) await this.#doDamage(this.#damage, incremental)
    return {
      set_up_ms: Math.round(setUpMs),
      boot_ms: Math.round(bootMs),
      backups: [this.#reportOf(full), this.#reportOf(incremental)],
      restores: [
        ...(await this.#restore(full, 'raw')),
        ...(await this.#restore(incremental, 'qcow2')),
      ],
      self_test: await this.#selfTest(incremental),
      duration_ms: Math.round(monotonicMs() - startMs),
      left_running: [],
    }
  }

  /** Stops everything the demo started and removes its folder; what is still there is returned. */
  async stop(): Promise<string[]> {
    const lab = this.#lab
    this.#lab = undefined
    await lab?.[Symbol.asyncDispose]()
    // A process that was told to end may need a moment to be gone from the table.
    for (let attempt = 0; attempt < 20 && (await lab?.processes())?.length; attempt++) {
      await sleep(100)
    }
    const left = (await lab?.processes()) ?? []
    await rm(this.folder, { recursive: true, force: true })
    return left
  }

  whatNext(): string {
    return [
      '',
      'The services and the machine are still running. Try:',
      `  export PATH=$PWD/apps/blockferry/bin:$PATH BLOCKFERRY_STATE=${this.folder}`,
      '  blockferry vms',
      '  blockferry backups',
      '  blockferry backup web01',
      `  blockferry restore latest:web01 --to ${this.folder}/restored --format qcow2`,
      'and in the end:',
      `  kill ${process.pid}`,
    ].join('\n')
  }

  async explainFailure(): Promise<void> {
    for (const name of serviceNames) {
      const log = (await this.#lab?.stand.log(name)) ?? ''
      if (log)
        console.error(
          `--- last lines of ${name} ---\n${log.trimEnd().split('\n').slice(-6).join('\n')}`,
        )
    }
  }

  async #restore(made: schedule.Run, format: 'raw' | 'qcow2'): Promise<RestoreReport[]> {
    this.#say(`Restoring ${made.backup} as ${format} …`)
    const { run, paths } = await this.#running().restore(made.backup, format)
    const reports: RestoreReport[] = []
    for (const reference of this.#referencesOf(made)) {
      const path = paths.get(reference.disk) ?? ''
      const truth = { path: reference.path, format: 'raw' }
      const identical = await sameContent({ path, format }, truth)
      // e2fsck reads raw images; a qcow2 one that is identical has its reference's file system.
      const damage = await fileSystemDamage(format === 'raw' ? path : reference.path)
      reports.push({
        backup: idOf(made.backup),
        disk: reference.disk,
        format,
        duration_ms: durationOf(run),
        identical,
        file_system_clean: damage === null,
      })
    }
    return reports
  }

  /** A comparison that cannot fail proves nothing: both kinds of damage must be seen. */
  async #selfTest(made: schedule.Run): Promise<Report['self_test']> {
    this.#say('Flipping one byte in a reference, then one in a pack: both must be found …')
    const lab = this.#running()
    const [reference] = this.#referencesOf(made) as [Reference]
    const { paths } = await lab.restore(made.backup, 'qcow2')
    const offset = await someDataOffset(reference.path)
    await flipByte(reference.path, offset)
    const image = { path: paths.get(reference.disk) ?? '', format: 'qcow2' }
    const same = await sameContent(image, { path: reference.path, format: 'raw' })
    await flipByte(reference.path, offset)

    const pack = await this.#largestPack()
    await flipByte(pack.path, Math.floor(pack.size / 2))
    const { run } = await lab.stand.schedule.startVerify({
      ...{ backup: made.backup, repository: '', requestId: '' },
      ...{ level: move.VerifyLevel.BLOCKS, bytesPerSecond: 0n },
    })
    const verified = await lab.stand.runEnd(run?.name ?? '')
    await flipByte(pack.path, Math.floor(pack.size / 2))
    return {
      reference_flip_detected: !same,
      pack_flip_detected: verified.error?.reason === 'BLOCK_CORRUPT',
    }
  }

  async #doDamage(what: 'reference' | 'pack', made: schedule.Run): Promise<void> {
    this.#say(`Damaging a ${what}, as --damage asked.`)
    const [reference] = this.#referencesOf(made) as [Reference]
    const pack = await this.#largestPack()
    if (what === 'pack') await flipByte(pack.path, Math.floor(pack.size / 2))
    else await flipByte(reference.path, await someDataOffset(reference.path))
  }

  /** It holds blocks of the full, which the incremental shares. */
  async #largestPack(): Promise<{ path: string; size: number }> {
    const packs = join(this.#running().repositoryFolder, 'packs')
    let largest = { path: '', size: 0 }
    for (const name of await readdir(packs, { recursive: true })) {
      const path = join(packs, name)
      const { size } = await stat(path)
      if (name.endsWith('.pack') && size > largest.size) largest = { path, size }
    }
    return largest
  }

  #reportOf(run: schedule.Run): BackupReport {
    const durationMs = durationOf(run)
    const readBytes = run.disks.reduce((sum, disk) => sum + Number(disk.readBytes), 0)
    const references = this.#referencesOf(run)
    const consistency = backup.consistencyToJSON(run.consistency)
    return {
      backup: idOf(run.backup),
      level: run.level === backup.Level.FULL ? 'full' : 'incremental',
      duration_ms: durationMs,
      rate_bytes_per_s: Math.round((readBytes * 1000) / Math.max(durationMs, 1)),
      freeze_ms: msFromDuration(run.freezeDuration),
      pause_ms: msFromDuration(run.pauseDuration),
      consistency: consistency.replace('CONSISTENCY_', '').toLowerCase(),
      decisions: [...new Set(run.decisions.map(({ decision }) => decision))],
      disks: run.disks.map((disk) => ({
        disk: disk.disk,
        size_bytes: Number(disk.sizeBytes),
        on_disk_bytes:
          references.find((reference) => reference.disk === disk.disk)?.onDiskBytes ?? 0,
        allocated_bytes: Number(disk.allocatedBytes),
        changed_bytes: Number(disk.changedBytes),
        read_bytes: Number(disk.readBytes),
        stored_bytes: Number(disk.storedBytes),
      })),
    }
  }

  #referencesOf(run: schedule.Run): Reference[] {
    const references = this.#running().references.get(run.pointId)
    if (!references) throw new Error(`${run.name}: nbdcopy read no reference of its point`)
    return references
  }

  #running(): Lab {
    this.#signal.throwIfAborted()
    if (!this.#lab) throw new Error('the services do not run')
    return this.#lab
  }

  #say(text: string): void {
    this.#signal.throwIfAborted()
    this.#tell(text)
  }
}

const idOf = (name: string): string => name.split('/').at(-1) ?? ''

function durationOf(run: schedule.Run): number {
  const start = run.startTime?.getTime() ?? 0
  return (run.endTime?.getTime() ?? start) - start
}

/** Offset of a byte that is not zero, as late in a file's first half as there is one. */
async function someDataOffset(path: string): Promise<number> {
  const bytes = await readFile(path)
  for (let offset = bytes.length >> 1; offset > 0; offset--) if (bytes[offset] !== 0) return offset
  return 0
}
