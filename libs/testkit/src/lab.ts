// A stand with one real machine and one repository, whose every committed point is also
// read by nbdcopy before it is released: the ground truth of the demo and the scenarios.
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { BackupError } from '@blockferry/errors'
import { type backup, move, schedule, snapshot } from '@blockferry/proto'
import type { GateHooks } from './gate.ts'
import { buildGuest, Guest, type GuestDisk, type GuestOptions } from './guest.ts'
import { copyExport, sameContent } from './images.ts'
import { Stand } from './stand.ts'

const mebibyte = 1024 * 1024

/** A disk as nbdcopy read it from the export of a point. */
export interface Reference {
  disk: string
  path: string
  /** Bytes its image took on the host then. */
  onDiskBytes: number
}

export interface LabOptions {
  /** Short path, readable by the account PostgreSQL runs as. */
  folder: string
  disks?: (folder: string) => GuestDisk[]
  guest?: Partial<GuestOptions>
  hooks?: { snapshot?: GateHooks; move?: GateHooks }
  /**
   * When nbdcopy reads a point: just before it is released (default), or as soon as it exists,
   * so that also a run that is killed has its reference. The point shows one instant throughout.
   */
  referenceAt?: 'begin' | 'release'
}

export class Lab implements AsyncDisposable {
  readonly vmName = 'web01'
  readonly uuid = '6f1c0a52-5e0b-4b0e-9d0e-3a3f6f0f2b11'
  readonly folder: string
  readonly stand: Stand
  /** By point id. */
  readonly references = new Map<string, Reference[]>()
  guest: Guest
  #options: LabOptions
  #points = new Map<string, snapshot.Point>()
  #restoreCount = 0

  private constructor(options: LabOptions, stand: Stand, guest: Guest) {
    this.folder = options.folder
    this.#options = options
    this.stand = stand
    this.guest = guest
  }

  static async start(options: LabOptions): Promise<Lab> {
    await mkdir(join(options.folder, 'references'), { recursive: true })
    const lab: { it?: Lab } = {}
    const outer = options.hooks?.snapshot ?? {}
    const stand = await Stand.start({
      folder: options.folder,
      hooks: {
        ...options.hooks,
        snapshot: {
          before: async (method, request) => {
            if (method === 'releasePoint') await lab.it?.beforeRelease(request as ReleaseRequest)
            await outer.before?.(method, request)
          },
          after: async (method, request, response) => {
            if (method === 'beginPoint') await lab.it?.afterBegin(response as BeginResponse)
            await outer.after?.(method, request, response)
          },
        },
      },
    })
    try {
      const guest = await startGuest(options)
      lab.it = new Lab(options, stand, guest)
      await lab.it.addHostAndRepository()
      return lab.it
    } catch (thrown) {
      await stand[Symbol.asyncDispose]()
      throw thrown
    }
  }

  get repositoryFolder(): string {
    return join(this.folder, 'repository')
  }

  async addHostAndRepository(adopt = false): Promise<void> {
    await this.stand.snapshot.createHost(
      snapshot.CreateHostRequest.create({
        hostId: 'here',
        host: {
          platform: { $case: 'qemu', value: { monitorFolder: join(this.folder, 'vms') } },
        },
      }),
    )
    await this.stand.catalog.createRepository({
      repositoryId: 'main',
      folder: this.repositoryFolder,
      adopt,
      requestId: '',
      passphraseFile: '',
    })
  }

  /** Boots the machine again from the disks it has. */
  async bootAgain(): Promise<void> {
    await this.guest.kill()
    this.guest = await startGuest(this.#options)
  }

  async startBackup(level: backup.Level): Promise<string> {
    const { run } = await this.stand.schedule.startBackup(
      schedule.StartBackupRequest.create({
        vm: this.vmName,
        repository: 'repositories/main',
        level,
      }),
    )
    return run?.name ?? ''
  }

  /** A backup to its end, however it ends. */
  async tryBackup(level: backup.Level): Promise<schedule.Run> {
    return this.stand.runEnd(await this.startBackup(level))
  }

  /** A backup that has to succeed. */
  async backUp(level: backup.Level): Promise<schedule.Run> {
    return succeeded(await this.tryBackup(level))
  }

  /** Restores all disks of a backup; the new images' paths by disk id. */
  async restore(name: string, format: 'raw' | 'qcow2'): Promise<Restored> {
    const { RAW, QCOW2 } = move.ImageFormat
    const folder = join(this.folder, `restored-${++this.#restoreCount}`)
    const { run } = await this.stand.schedule.startRestore(
      schedule.StartRestoreRequest.create({
        backup: name,
        targetFolder: folder,
        format: format === 'raw' ? RAW : QCOW2,
      }),
    )
    const ended = succeeded(await this.stand.runEnd(run?.name ?? ''))
    const paths = new Map(ended.disks.map(({ disk, targetPath }) => [disk, targetPath]))
    return { run: ended, folder, format, paths }
  }

  /** Which disks of a backup, restored, do not hold what its point showed; the images go. */
  async differences(name: string, references: Reference[]): Promise<string[]> {
    const restored = await this.restore(name, 'raw')
    const different: string[] = []
    for (const { disk, path } of references) {
      const image = { path: restored.paths.get(disk) ?? '', format: 'raw' }
      if (!(await sameContent(image, { path, format: 'raw' }))) different.push(disk)
    }
    await rm(restored.folder, { recursive: true })
    return different
  }

  /** Command lines of processes that have the lab's folder in them. */
  async processes(): Promise<string[]> {
    const found: string[] = []
    for (const id of await readdir('/proc')) {
      if (!/^\d+$/.test(id) || Number(id) === process.pid) continue
      const line = await readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => '')
      if (line.includes(this.folder)) found.push(line.replaceAll('\0', ' ').trim())
    }
    return found
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.guest.kill()
    await this.stand[Symbol.asyncDispose]()
  }

  private async afterBegin({ point }: BeginResponse): Promise<void> {
    if (!point) return
    if (this.#options.referenceAt === 'begin') await this.readReference(point)
    else this.#points.set(point.pointId, point)
  }

  private async beforeRelease({ pointId, outcome }: ReleaseRequest): Promise<void> {
    const point = this.#points.get(pointId)
    this.#points.delete(pointId)
    if (point && outcome === snapshot.PointOutcome.COMMITTED) await this.readReference(point)
  }

  private async readReference(point: snapshot.Point): Promise<void> {
    const references: Reference[] = []
    for (const { disk, location, address } of point.disks) {
      const path = join(this.folder, 'references', `${point.pointId}-${disk}.raw`)
      await rm(path, { force: true })
      await copyExport(address?.$case === 'nbdUri' ? address.value : (address?.value ?? ''), path)
      const { blocks } = await stat(location)
      references.push({ disk, path, onDiskBytes: blocks * 512 })
    }
    this.references.set(point.pointId, references)
  }
}

type BeginResponse = snapshot.BeginPointResponse
type ReleaseRequest = snapshot.ReleasePointRequest

export interface Restored {
  run: schedule.Run
  folder: string
  format: 'raw' | 'qcow2'
  paths: Map<string, string>
}

export function succeeded(run: schedule.Run): schedule.Run {
  if (run.state === schedule.Run_State.SUCCEEDED) return run
  const { reason = '', message = '' } = run.error ?? {}
  throw new BackupError('INTERNAL', `${run.name} did not succeed: ${reason}: ${message}`)
}

const twoDisks = (folder: string): GuestDisk[] => [
  { path: join(folder, 'system.qcow2'), format: 'qcow2', sizeBytes: 1024 * mebibyte },
  { path: join(folder, 'data.qcow2'), format: 'qcow2', sizeBytes: 512 * mebibyte },
]

async function startGuest(options: LabOptions): Promise<Guest> {
  const folder = join(options.folder, 'vms', 'web01')
  await mkdir(folder, { recursive: true })
  return Guest.start({
    files: await buildGuest(),
    folder,
    name: 'web01',
    uuid: '6f1c0a52-5e0b-4b0e-9d0e-3a3f6f0f2b11',
    append: 'writer=1',
    ...options.guest,
    disks: (options.disks ?? twoDisks)(folder),
  })
}
