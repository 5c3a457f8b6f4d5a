import type { Logger } from '@blockferry/core'
import { argumentInvalid } from '@blockferry/errors'
import { bitmapName } from '@blockferry/hypervisor'
import type { move } from '@blockferry/proto'
import { decodeManifestBody } from '@blockferry/repository'
import type { MoveLimits } from './backup_session.ts'
import { DifferentialImage } from './differential_image.ts'
import { DifferentialSession } from './differential_session.ts'
import { findManifest } from './find_manifest.ts'
import { MovingDisk } from './moving_disk.ts'
import type { HeldRepository } from './repositories.ts'
import { checkRequest, formatOf, storedDisk } from './start_restore.ts'

/** Errors: BACKUP_NOT_FOUND, DISK_NOT_FOUND, IMAGE_MISSING, ARGUMENT_INVALID. */
export async function openDifferential(
  request: move.StartRestoreRequest,
  held: HeldRepository,
  runFolder: string,
  limits: MoveLimits,
  log: Logger,
): Promise<DifferentialSession> {
  checkRequest(request)
  checkDifferential(request)
  const { sessionId, folder: repositoryFolder } = request
  const manifest = await findManifest(held.repository, request.backupId)
  const { backup_id: backup, point_id: pointId } = manifest
  const restore = { backup, repository: repositoryFolder, session: sessionId }
  // The driver that keeps bitmaps finds its own again: what the disk changes from now on counts
  // from the backup that it holds then.
  const tracked = decodeManifestBody(manifest.body).driver === 'qemu'
  const bitmap = tracked ? bitmapName(held.repository.info().repository_id, pointId) : null
  const images: DifferentialImage[] = []
  for (const wanted of request.disks) {
    const stored = storedDisk(manifest, wanted.disk)
    const disk = new MovingDisk(stored.disk_id, stored.size_bytes)
    const format = formatOf(wanted)
    const order = { disk, stored, path: wanted.targetPath, format, restore, bitmap }
    images.push(await DifferentialImage.prepare(order))
  }
  refuseTwice(images)
  return new DifferentialSession(sessionId, { images, held, runFolder }, limits, log)
}

function checkDifferential({ disks, startScriptPath }: move.StartRestoreRequest): void {
  const beside = disks.find(({ replace }) => !replace)
  if (beside) throw argumentInvalid('disks.replace', 'false', 'set it in a differential restore')
  if (startScriptPath !== '') {
    throw argumentInvalid(
      'start_script_path',
      startScriptPath,
      'leave it out in a differential restore',
    )
  }
}

/** Two names of one file. */
function refuseTwice(images: DifferentialImage[]): void {
  const paths = images.map(({ path }) => path)
  const twice = paths.find((path, index) => paths.indexOf(path) !== index)
  if (twice !== undefined) {
    throw argumentInvalid('disks.target_path', twice, 'give every disk an image of its own')
  }
}
