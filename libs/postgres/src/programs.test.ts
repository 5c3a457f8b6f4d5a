import { execFile } from 'node:child_process'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { canReach, findPrograms, launchAccount } from './programs.ts'

describe('findPrograms', () => {
  it('runs the PostgreSQL of the npm package, also where the account cannot reach it', async () => {
    const folder = await mkdtemp('/tmp/blockferry-programs-test-')
    await chmod(folder, 0o755)
    try {
      const account = await launchAccount()
      const { folder: programs, env } = await findPrograms(account, '18', async () => folder)
      const { stdout } = await promisify(execFile)(join(programs, 'postgres'), ['--version'], {
        env,
        cwd: '/',
        ...(account && { uid: account.uid, gid: account.gid }),
      })
      expect(stdout).toContain('PostgreSQL) 18.')
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })
})

describe('canReach', () => {
  it('says no below a folder that is closed to others', async () => {
    const stranger = { name: 'stranger', uid: 54_321, gid: 54_321 }
    const folder = await mkdtemp('/tmp/blockferry-programs-test-')
    expect(await canReach(stranger, folder)).toBe(false)
    await chmod(folder, 0o755)
    expect(await canReach(stranger, folder)).toBe(true)
    await rm(folder, { recursive: true })
  })
})
