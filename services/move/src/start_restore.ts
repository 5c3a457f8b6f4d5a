import type { Logger } from '@blockferry/core'
import { argumentInvalid, BackupError } from '@blockferry/errors'
import type { Manifest } from '@blockferry/native'
import {
  type ImageFormatName,
  imageFormatName,
  imageFormatNames,
  type move,
} from '@blockferry/proto'
import { decodeManifestBody } from '@blockferry/repository'
import type { MoveLimits } from './backup_session.ts'
import { findManifest } from './find_manifest.ts'
import { MovingDisk } from './moving_disk.ts'
import type { HeldRepository } from './repositories.ts'
import { RestoreSession } from './restore_session.ts'
import { RestoredImage } from './restored_image.ts'
import { ScriptFile } from './script_file.ts'
import { startScript } from './start_script.ts'

/** Checks everything that can be known beforehand. Errors: BACKUP_NOT_FOUND, DISK_NOT_FOUND, TARGET_…, TOOL_MISSING. */
export async function openRestore(
  request: move.StartRestoreRequest,
  held: HeldRepository,
  runFolder: string,
  limits: MoveLimits,
  log: Logger,
): Promise<RestoreSession> {
  checkRequest(request)
  const { sessionId } = request
  const manifest = await findManifest(held.repository, request.backupId)
  const images: RestoredImage[] = []
  for (const [index, wanted] of request.disks.entries()) {
    images.push(await prepareImage(wanted, manifest, sessionId, index))
  }
  const script = await prepareScript(request, manifest, images)
  return new RestoreSession(sessionId, { images, script, held, runFolder }, limits, log)
}

export function checkRequest(request: move.StartRestoreRequest): void {
  if (request.disks.length === 0) throw argumentInvalid('disks', '', 'give at least one disk')
  const seen = new Set<string>()
  const checkPath = (field: string, path: string): void => {
    const usable = path.startsWith('/') && !path.endsWith('/') && !path.includes('\0')
    if (!usable) throw argumentInvalid(field, path, 'give the absolute path of a file')
    if (seen.has(path)) throw argumentInvalid(field, path, 'give every file a path of its own')
    seen.add(path)
  }
  for (const { targetPath } of request.disks) checkPath('disks.target_path', targetPath)
  if (request.startScriptPath !== '') checkPath('start_script_path', request.startScriptPath)
}

/** Errors: DISK_NOT_FOUND. */
export function storedDisk(manifest: Manifest, disk: string): Manifest['disks'][number] {
  const stored = manifest.disks.find(({ disk_id }) => disk_id === disk)
  if (stored) return stored
  const known = manifest.disks.map(({ disk_id }) => disk_id).join(', ')
  throw new BackupError(
    'DISK_NOT_FOUND',
    `restore backup ${manifest.backup_id}: it has no disk ${JSON.stringify(disk)}; its disks are ${known}`,
    { backup: manifest.backup_id, disk, disks: known },
  )
}

/** Errors: ARGUMENT_INVALID. */
export function formatOf({ format }: move.RestoreDisk): ImageFormatName {
  const name = imageFormatName(format)
  if (name) return name
  const advice = `give one of ${imageFormatNames.join(', ')}`
  throw argumentInvalid('disks.format', String(format), advice)
}

async function prepareImage(
  wanted: move.RestoreDisk,
  manifest: Manifest,
  sessionId: string,
  index: number,
): Promise<RestoredImage> {
  const stored = storedDisk(manifest, wanted.disk)
  const disk = new MovingDisk(stored.disk_id, stored.size_bytes)
  const format = formatOf(wanted)
  const { targetPath: path, replace } = wanted
  return await RestoredImage.prepare({ disk, stored, path, format, replace }, sessionId, index)
}

async function prepareScript(
  request: move.StartRestoreRequest,
  manifest: Manifest,
  images: RestoredImage[],
): Promise<ScriptFile | null> {
  const { startScriptPath: scriptPath, sessionId } = request
  if (scriptPath === '') return null
  const { vmDisplayName, vmConfigJson } = decodeManifestBody(manifest.body)
  const text = startScript({
    scriptPath,
    vmName: vmDisplayName,
    backupId: manifest.backup_id,
    vmConfigJson,
    disks: manifest.disks.map(({ disk_id }) => disk_id),
    images: images.map(({ disk, path, format }) => ({ disk: disk.id, path, format })),
  })
  return text === null ? null : await ScriptFile.prepare(scriptPath, text, sessionId)
}
