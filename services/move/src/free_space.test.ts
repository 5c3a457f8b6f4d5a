import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { checkFreeSpace } from './free_space.ts'

const mib = 1024 * 1024
const isRoot = process.getuid?.() === 0

describe('checkFreeSpace', () => {
  it.runIf(isRoot)(
    'says nothing, warns, and refuses as a file system of 100 MiB fills',
    async () => {
      const folder = mkdtempSync('/tmp/blockferry-space-')
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=100m', 'tmpfs', folder])
      const fillTo = (freeBytes: number) =>
        writeFileSync(join(folder, 'ballast'), Buffer.alloc(100 * mib - freeBytes))
      try {
        fillTo(10 * mib)
        expect(await checkFreeSpace(folder)).toEqual([])
        fillTo(2 * mib)
        expect(await checkFreeSpace(folder)).toMatchObject([
          { decision: 'REPOSITORY_NEARLY_FULL', message: expect.stringContaining('2.0 MiB free') },
        ])
        fillTo(mib / 2)
        await expect(checkFreeSpace(folder)).rejects.toMatchObject({
          reason: 'REPOSITORY_FULL',
          metadata: { path: folder, free_bytes: String(mib / 2), floor_bytes: String(mib) },
        })
      } finally {
        execFileSync('umount', [folder])
        rmSync(folder, { recursive: true })
      }
    },
  )
})
