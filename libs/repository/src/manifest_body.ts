// What a manifest says besides its native header: the message blockferry.catalog.v1.Backup as
// JSON, compressed with LZ4 (docs/manifest-body.md gives every byte). JSON, not the binary
// encoding, so that a rescue program of any language reads it without our protos.
//
// Where header and body speak of the same thing the header wins: it is what was committed.
import { BackupError } from '@blockferry/errors'
import type { ListedManifest, Manifest } from '@blockferry/native'
import { backup as proto } from '@blockferry/proto'
import { compressSync, uncompressSync } from 'lz4-napi'

type Backup = proto.Backup
type BackupDisk = proto.BackupDisk

const bodyVersion = 1
const lengthPrefixSize = 4
/** The native side takes no more, see CommitOptions.body. */
const compressedSizeMax = 16 * 1024 * 1024
const plainSizeMax = 64 * 1024 * 1024

/** Errors: ARGUMENT_INVALID when the backup's description is too large. */
export function encodeManifestBody(backup: Backup): Uint8Array {
  const plain = Buffer.from(
    JSON.stringify({ version: bodyVersion, backup: proto.Backup.toJSON(backup) }),
  )
  const compressed = plain.length <= plainSizeMax ? compressSync(plain) : null
  if (compressed === null || compressed.length > compressedSizeMax) {
    throw new BackupError(
      'ARGUMENT_INVALID',
      `describe backup ${backup.name}: its description takes ${plain.length} bytes, more than a manifest holds; shorten the machine's configuration`,
      { field: 'backup', value: backup.name },
    )
  }
  return compressed
}

/** Errors: MANIFEST_CORRUPT; REPOSITORY_TOO_NEW when a later version of the program wrote it. */
export function decodeManifestBody(body: Uint8Array): Backup {
  const fields = parseObject(uncompress(body))
  if (fields.version !== bodyVersion) throw wrongVersion(fields.version)
  return parseBackup(fields.backup)
}

/** The backup that a manifest describes; its name has no repository: `backups/{backup}`. */
export function backupFromManifest(manifest: Manifest): Backup {
  const backup = decodeManifestBody(manifest.body)
  const described = new Map(backup.disks.map((disk) => [disk.disk, disk]))
  return {
    ...backup,
    name: `backups/${manifest.backup_id}`,
    pointId: manifest.point_id,
    baseBackup: manifest.base_backup_id,
    sequence: BigInt(manifest.sequence),
    held: false,
    removeTime: undefined,
    lockUntilTime: timeOf(manifest.lock_until_seconds || null),
    disks: manifest.disks
      .map((stored) => committedDisk(stored, described.get(stored.disk_id)))
      .sort((a, b) => (a.disk < b.disk ? -1 : 1)),
  }
}

/** The same with the marks beside the manifest. */
export function backupFromListed(listed: ListedManifest & { kind: 'manifest' }): Backup {
  const { held, removed_seconds } = listed
  return { ...backupFromManifest(listed.manifest), held, removeTime: timeOf(removed_seconds) }
}

const timeOf = (seconds: number | null): Date | undefined =>
  seconds === null ? undefined : new Date(seconds * 1000)

function committedDisk(stored: Manifest['disks'][number], described?: BackupDisk): BackupDisk {
  return {
    ...(described ?? proto.BackupDisk.create()),
    disk: stored.disk_id,
    sizeBytes: BigInt(stored.size_bytes),
    root: stored.root ?? '',
  }
}

function uncompress(body: Uint8Array): Buffer {
  if (body.length < lengthPrefixSize || body.length > compressedSizeMax) {
    throw corrupt(`it has ${body.length} bytes`)
  }
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  const plainSize = bytes.readUInt32LE(0)
  // The prefix decides how much memory is taken, so it is checked before anything is decoded.
  if (plainSize > plainSizeMax) throw corrupt(`it claims to hold ${plainSize} bytes`)
  let plain: Buffer
  try {
    plain = uncompressSync(bytes)
  } catch (thrown) {
    throw corrupt('its LZ4 block cannot be decoded', thrown)
  }
  if (plain.length !== plainSize) throw corrupt(`it holds ${plain.length} of ${plainSize} bytes`)
  return plain
}

function parseObject(plain: Buffer): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(plain))
  } catch (thrown) {
    throw corrupt('it is no JSON in UTF-8', thrown)
  }
  if (!isObject(value)) throw corrupt('it is no JSON object')
  return value
}

function parseBackup(value: unknown): Backup {
  if (!isObject(value)) throw corrupt('it has no backup')
  let backup: Backup
  try {
    backup = proto.Backup.fromJSON(value)
    // What cannot be sent cannot be used: dates and integers out of bounds surface here.
    backup = proto.Backup.decode(proto.Backup.encode(backup).finish())
  } catch (thrown) {
    throw corrupt('a field of its backup has a wrong value', thrown)
  }
  return backup
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function wrongVersion(version: unknown): BackupError {
  if (Number.isInteger(version) && (version as number) > bodyVersion) {
    return new BackupError(
      'REPOSITORY_TOO_NEW',
      `read the body of a manifest: it has version ${version}, this program reads up to ${bodyVersion}; upgrade Blockferry`,
      { version: String(version) },
    )
  }
  return corrupt('it has no version')
}

const corrupt = (what: string, cause?: unknown): BackupError =>
  new BackupError(
    'MANIFEST_CORRUPT',
    `read the body of a manifest: ${what}; the backup cannot be used, the others are not affected`,
    { what },
    { cause },
  )
