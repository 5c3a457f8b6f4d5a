// A machine that is off, whose storage daemon has a reader that hangs.
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { monotonicMs, newPointId } from '@blockferry/core'
import { QemuOffDriver, type Vm } from '@blockferry/hypervisor'
import { expect, it } from 'vitest'
import { askAndNeverRead } from './stalled_reader.ts'

const mebibyte = 1024 * 1024
const identity = '11111111-2222-3333-4444-555555555555'
const repositoryId = 'f00dfeed'.repeat(4)
const { signal } = new AbortController()

it('releases a point whose reader hangs in time, with the bitmaps of the images saved', async () => {
  const home = await mkdtemp('/tmp/bf-off-')
  const location = join(home, 'a.qcow2')
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', location, '32M'])
  execFileSync('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 0 24M', location], { stdio: 'pipe' })
  const config: Vm['config'] = { driver: 'qemu', commandLine: ['qemu'], diskFiles: {} }
  const about = { identity, name: 'vm', state: 'running', uncovered: [], refused: null } as const
  const disks = [{ id: 'a', format: 'qcow2', sizeBytes: 32 * mebibyte, location }]
  const known: Vm = { ...about, uncovered: [], disks, config }
  const driver = new QemuOffDriver({
    ...{ runFolder: join(home, 'run'), tag: 'abcdef', known: () => [known] },
  })
  try {
    const point = await driver.beginPoint(
      {
        ...{ pointId: newPointId(), vmIdentity: identity, repositoryId, bases: [] },
        ...{ committedPointIds: [], keptPointIds: [], quiesce: true },
      },
      signal,
    )
    const reader = await askAndNeverRead(point, 'a', 16)
    try {
      const startMs = monotonicMs()
      await driver.releasePoint(point.pointId, 'committed')
      expect(monotonicMs() - startMs).toBeLessThan(8_000)
    } finally {
      reader.destroy()
    }
    const info = execFileSync('qemu-img', ['info', '--output=json', location]).toString()
    const { bitmaps } = JSON.parse(info)['format-specific'].data
    expect(bitmaps).toEqual([expect.objectContaining({ flags: ['auto'] })])
    expect(await driver.findPoints(signal)).toEqual([])
  } finally {
    await driver[Symbol.asyncDispose]()
    await rm(home, { recursive: true })
  }
})
