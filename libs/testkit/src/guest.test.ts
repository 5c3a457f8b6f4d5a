import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { sleep } from '@blockferry/core'
import { describe, expect, it, onTestFinished } from 'vitest'
import { buildGuest, Guest } from './guest.ts'

const mebibyte = 1024 * 1024

describe('Guest', () => {
  it('boots, runs scripts, writes by itself and powers off', { timeout: 120_000 }, async () => {
    const folder = await mkdtemp('/tmp/bf-guest-')
    onTestFinished(() => rm(folder, { recursive: true }))
    const files = await buildGuest()
    await using guest = await Guest.start({
      files,
      folder,
      uuid: '5d4a7c1e-0000-4000-8000-000000000001',
      disks: [
        { path: join(folder, 'a.qcow2'), format: 'qcow2', sizeBytes: 256 * mebibyte },
        { path: join(folder, 'b.raw'), format: 'raw', sizeBytes: 64 * mebibyte, filesystem: false },
      ],
      append: 'writer=1',
    })
    console.log(`booted in ${Math.round(guest.bootMs)} ms`)
    expect(await guest.sh('cat /sys/block/vda/serial /sys/block/vdb/serial')).toBe('disk0disk1')
    expect(await guest.sh('grep -c " /data/" /proc/mounts')).toBe('1\n')
    await guest.sh('dd if=/dev/urandom of=/dev/vdb bs=64k count=3 oflag=direct')
    await expect(guest.sh('echo no; exit 3')).rejects.toThrow('status 3: no')
    const before = await guest.ticks()
    await sleep(3_000)
    expect(await guest.ticks()).toBeGreaterThan(before + 4)
    await guest.stop()
    expect(guest.running).toBe(false)
  })
})
