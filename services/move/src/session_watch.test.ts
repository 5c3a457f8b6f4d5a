import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { SessionWatch } from './session_watch.ts'

const session = 'vm/writer'

describe('watching sessions', () => {
  let folder: string
  const repository = { listOpenSessions: async () => [session] }

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'watch-'))
    await mkdir(join(folder, 'sessions', session), { recursive: true })
  })
  afterEach(() => rm(folder, { recursive: true }))

  it('takes one for dead of which nothing changed between two looks', async () => {
    const watch = new SessionWatch(0)
    expect(await new SessionWatch(60_000).look(folder, repository)).toEqual([])
    await watch.look(folder, repository)
    expect(await watch.look(folder, repository)).toEqual([session])
  })

  it.each(['writer/1.pack-new', 'point@disk.checkpoint'])('sees it write %s', async (file) => {
    const watch = new SessionWatch(1)
    await watch.look(folder, repository)
    await later()
    await writeFile(join(folder, 'sessions', 'vm', file), 'x')
    expect(await watch.look(folder, repository)).toEqual([])
    await later()
    expect(await watch.look(folder, repository)).toEqual([session])
  })

  it('starts anew after a look that failed', async () => {
    const watch = new SessionWatch(1)
    await watch.look(folder, repository)
    await later()
    const away = { listOpenSessions: () => Promise.reject(new Error('away')) }
    await expect(watch.look(folder, away)).rejects.toThrow('away')
    expect(await watch.look(folder, repository)).toEqual([])
    await rm(join(folder, 'sessions', session), { recursive: true })
    await writeFile(join(folder, 'sessions', session), 'no folder')
    await expect(watch.look(folder, repository)).rejects.toThrow('ENOTDIR')
  })
})

const later = () => new Promise((resolve) => setTimeout(resolve, 5))
