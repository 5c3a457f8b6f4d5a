// The folder of a host's running points: NBD sockets, the record of each point and,
// while a guest is held, the guard's mark. QEMU is the truth about what exists; a
// record only keeps what QEMU cannot tell.
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Point } from '../driver.ts'
import type { HoldMark } from './hold.ts'
import { parseTaggedName, taggedName } from './names.ts'
import type { ProcessId } from './process.ts'

export interface PointRecord {
  point: Point
  monitor: string
  /** The QEMU that the point was taken from; null when its process could not be found. */
  qemu: ProcessId | null
  repositoryId: string
  keptPointIds: string[]
}

export class RunFolder {
  readonly path: string
  readonly tag: string

  constructor(path: string, tag: string) {
    this.path = path
    this.tag = tag
  }

  async create(): Promise<void> {
    await mkdir(this.path, { recursive: true, mode: 0o700 })
  }

  socketPath(pointId: string): string {
    return this.#file(pointId, 'sock')
  }

  markPath(pointId: string): string {
    return this.#file(pointId, 'hold')
  }

  async writeRecord(record: PointRecord): Promise<void> {
    const path = this.#file(record.point.pointId, 'point')
    await writeFile(`${path}.new`, JSON.stringify(record), { mode: 0o600 })
    await rename(`${path}.new`, path)
  }

  readRecord(pointId: string): Promise<PointRecord | null> {
    return readJson(this.#file(pointId, 'point'))
  }

  readMark(pointId: string): Promise<HoldMark | null> {
    return readJson(this.markPath(pointId))
  }

  async remove(pointId: string): Promise<void> {
    for (const part of ['sock', 'point', 'point.new', 'hold.new']) {
      await rm(this.#file(pointId, part), { force: true })
    }
  }

  /** Points of this installation that left a file here or in `more`. */
  async pointIds(more: string | null): Promise<Set<string>> {
    const lists = await Promise.all([listFolder(this.path), more ? listFolder(more) : []])
    const names = lists.flat().map(parseTaggedName)
    return new Set(
      names.filter((name) => name?.tag === this.tag).map((name) => name?.pointId ?? ''),
    )
  }

  /** Names of the files of one point in `folder`. */
  async filesOf(folder: string, pointId: string): Promise<string[]> {
    const prefix = taggedName(this.tag, pointId, '')
    return (await listFolder(folder)).filter((name) => name.startsWith(prefix))
  }

  #file(pointId: string, part: string): string {
    return join(this.path, taggedName(this.tag, pointId, part))
  }
}

const listFolder = (folder: string) => readdir(folder).catch((): string[] => [])

async function readJson<T>(path: string): Promise<T | null> {
  try {
    return JSON.parse(await readFile(path, 'utf8'))
  } catch {
    return null
  }
}
