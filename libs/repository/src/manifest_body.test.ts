import { randomHex } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import type { Manifest } from '@blockferry/native'
import { backup as proto } from '@blockferry/proto'
import { compressSync, uncompressSync } from 'lz4-napi'
import { describe, expect, it } from 'vitest'
import { backupFromManifest, decodeManifestBody, encodeManifestBody } from './index.ts'

const oddName = 'web/01\n„Größe“ \u{1f680} \u0000 $(reboot) \\ " \''

const backup = proto.Backup.create({
  name: 'backups/20260131-235959-4f2a9c',
  vmIdentity: '5a1c9f34-0000-4000-8000-00000000ffff',
  vmDisplayName: oddName,
  policy: 'policies/nightly',
  level: proto.Level.DIFFERENTIAL,
  method: proto.Method.CONSOLIDATED,
  consistency: proto.Consistency.APPLICATION,
  pointId: '0123456789ab',
  baseBackup: '20260130-235959-000000',
  sequence: 7n,
  pointTime: new Date(1_700_000_000_123),
  startTime: new Date(-1),
  endTime: new Date(1_700_000_100_999),
  freezeDuration: { seconds: 0n, nanos: 41_000_001 },
  pauseDuration: { seconds: 1n, nanos: 5 },
  disks: [
    {
      disk: 'a/b\nc',
      sizeBytes: 2n ** 41n,
      root: 'ab'.repeat(32),
      format: 'qcow2',
      location: `/images/${oddName}.qcow2`,
      allocatedBytes: 2n ** 40n + 1n,
      changedBytes: 3n,
      readBytes: 4n,
      storedBytes: 5n,
      baseBackup: '20260130-235959-000000',
    },
    { disk: 'vda', sizeBytes: 512n },
  ],
  uncoveredDisks: [
    {
      disk: 'cd',
      location: '/iso',
      sizeBytes: 1n,
      reason: 'DISK_FORMAT_UNSUPPORTED',
      message: 'x',
    },
  ],
  decisions: [{ decision: 'CHANGED_BLOCKS_USED', disk: 'vda', message: oddName }],
  driver: 'qemu',
  vmConfigJson: JSON.stringify({ driver: 'qemu', commandLine: ['qemu', oddName], diskFiles: {} }),
  version: '0.1.0',
  host: 'hosts/h',
  run: 'runs/r',
  tags: ['gold', 'before-upgrade'],
})

const manifest = (body: Uint8Array): Manifest => ({
  backup_id: 'committed',
  vm_pseudonym: '00'.repeat(16),
  point_id: 'ffffffffffff',
  base_backup_id: '',
  sequence: 9,
  incarnation: 1,
  number: 2,
  disks: [
    { disk_id: 'vda', root: 'cd'.repeat(32), size_bytes: 1024 },
    { disk_id: 'added', root: null, size_bytes: 0 },
  ],
  body,
  lock_until_seconds: 0,
})

/** A small generator with a seed (mulberry32), so that a failure can be replayed. */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const reasonOf = (body: Uint8Array): string => {
  try {
    decodeManifestBody(body)
    return ''
  } catch (thrown) {
    return thrown instanceof BackupError ? thrown.reason : `unexpected ${thrown}`
  }
}

const bodyOf = (value: unknown): Buffer => compressSync(Buffer.from(JSON.stringify(value)))

describe('manifest body', () => {
  it('gives back every field', () => {
    expect(decodeManifestBody(encodeManifestBody(backup))).toEqual(backup)
  })

  it('gives back a backup of which nothing is set', () => {
    const empty = proto.Backup.create()
    expect(decodeManifestBody(encodeManifestBody(empty))).toEqual(empty)
  })

  it('is a length and an LZ4 block of versioned JSON', () => {
    const body = Buffer.from(encodeManifestBody(backup))
    const plain = uncompressSync(body)
    expect(body.readUInt32LE(0)).toBe(plain.length)
    const fields = JSON.parse(plain.toString('utf8'))
    expect(fields.version).toBe(1)
    expect(fields.backup.pointTime).toBe('2023-11-14T22:13:20.123Z')
    expect(fields.backup.disks[0].sizeBytes).toBe('2199023255552')
  })

  it('yields to the header where both speak of the same', () => {
    const read = backupFromManifest(manifest(encodeManifestBody(backup)))
    expect(read.name).toBe('backups/committed')
    expect(read.pointId).toBe('ffffffffffff')
    expect(read.baseBackup).toBe('')
    expect(read.sequence).toBe(9n)
    expect(read.disks.map((disk) => disk.disk)).toEqual(['added', 'vda'])
    expect(read.disks[1]).toMatchObject({ root: 'cd'.repeat(32), sizeBytes: 1024n })
    expect(read.vmDisplayName).toBe(oddName)
  })

  it('refuses a description that no manifest holds', () => {
    const large = proto.Backup.create({ vmConfigJson: randomHex(20 * 1024 * 1024) })
    expect(() => encodeManifestBody(large)).toThrow(BackupError)
  })

  it('takes no memory for a length that the bytes only claim', () => {
    for (const claimed of [0xffffffff, 64 * 1024 * 1024 + 1]) {
      const body = Buffer.from(encodeManifestBody(backup))
      body.writeUInt32LE(claimed, 0)
      expect(reasonOf(body)).toBe('MANIFEST_CORRUPT')
    }
  })

  it('names a newer version instead of guessing', () => {
    expect(reasonOf(bodyOf({ version: 2, backup: {} }))).toBe('REPOSITORY_TOO_NEW')
  })

  it('refuses values of a wrong kind', () => {
    const wrong = [
      null,
      [],
      {},
      { version: 1 },
      { version: '1', backup: {} },
      { version: 1, backup: { sequence: 'many' } },
      { version: 1, backup: { sequence: '99999999999999999999999' } },
      { version: 1, backup: { pointTime: 'yesterday' } },
      { version: 1, backup: { level: 'LEVEL_NONE' } },
      { version: 1, backup: { vmDisplayName: { toString: 1 } } },
      { version: 1, backup: { disks: [null] } },
    ]
    for (const value of wrong) {
      expect(reasonOf(bodyOf(value)), JSON.stringify(value)).toBe('MANIFEST_CORRUPT')
    }
  })

  it('never fails otherwise than by a reason, whatever the bytes', () => {
    const seed = 20_260_131
    const random = randomOf(seed)
    const good = Buffer.from(encodeManifestBody(backup))
    let refused = 0
    for (let round = 0; round < 3000; round++) {
      const body = Buffer.from(good.subarray(0, Math.ceil(random() * good.length)))
      for (let flips = Math.floor(random() * 4); flips >= 0; flips--) {
        body[Math.floor(random() * body.length)] = Math.floor(random() * 256)
      }
      const reason = reasonOf(body)
      if (reason !== '') refused++
      expect(['', 'MANIFEST_CORRUPT', 'REPOSITORY_TOO_NEW'], `SEED=${seed}`).toContain(reason)
    }
    expect(refused).toBeGreaterThan(2000)
  })
})
