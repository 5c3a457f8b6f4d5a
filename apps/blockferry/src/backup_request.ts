// From the words of `blockferry backup` to what the schedule service is asked.
import { existsSync } from 'node:fs'
import { randomHex } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { backup, type move, type schedule } from '@blockferry/proto'
import { type ChangedBlocks, readChangedBlocks } from './changed_blocks.ts'
import { usageError } from './failure.ts'
import { type Image, readImage } from './image.ts'
import { findBackup, fullName, lastPart } from './resource_name.ts'
import type { Services } from './services.ts'

export interface StartOptions {
  vm?: string
  to?: string
  level?: backup.Level
  full?: boolean
  quiesce?: boolean
  compression?: move.Compression
  changedBlocks?: string
  base?: string
  tag?: string[]
  lock?: schedule.Policy['lockDuration']
}

/** Everything that can be checked here is, before anything starts. */
export async function backupRequest(
  services: Services,
  what: string[],
  options: StartOptions,
): Promise<schedule.StartBackupRequest> {
  const { vm, images } = subjectOf(what, options.vm)
  if ((options.changedBlocks === undefined) !== (options.base === undefined)) {
    throw usageError(`back up ${vm}: give --changed-blocks and --base together, or neither`)
  }
  const changes =
    options.changedBlocks === undefined ? [] : readChangedBlocks(options.changedBlocks)
  checkAgainst(images, changes, options.changedBlocks ?? '')
  const base = options.base === undefined ? '' : await baseId(services, options.base)
  return {
    vm,
    images: images.map(({ path }) => path),
    repository: options.to === undefined ? '' : fullName('repositories', options.to),
    level: options.full ? backup.Level.FULL : (options.level ?? backup.Level.INCREMENTAL),
    skipQuiesce: options.quiesce === false,
    compression: options.compression,
    requestId: randomHex(8),
    baseBackup: base,
    suppliedChanges: changes.map(({ supplied }) => supplied),
    tags: options.tag ?? [],
    lockDuration: options.lock,
  }
}

/** With --vm the words are images; without, the one word is a VM. */
function subjectOf(what: string[], name: string | undefined): { vm: string; images: Image[] } {
  const [first, ...others] = what
  if (name !== undefined) {
    return { vm: name, images: what.map(readImage) }
  }
  if (first === undefined) throw usageError('back up: name a VM, or images and --vm NAME')
  const looksLikePath = first.includes('/') && !/^hosts\/[^/]+\/vms\/[^/]+$/.test(first)
  if (others.length > 0 || looksLikePath) {
    const isFile = existsSync(first)
    throw usageError(
      isFile || others.length > 0
        ? `back up ${what.join(' ')}: images need a name to be kept under; add --vm NAME`
        : `back up ${first}: neither a VM nor a file that exists`,
    )
  }
  return { vm: first, images: [] }
}

function checkAgainst(images: Image[], changes: ChangedBlocks[], file: string): void {
  const unnamed = changes.find(({ disk }) => disk === '')
  if (!unnamed || images.length === 0) return
  const [image, ...others] = images
  if (others.length > 0) {
    throw new BackupError(
      'CHANGED_BLOCKS_INVALID',
      `read the changed blocks of ${file}: extents: there are ${images.length} images; name the disks: {"disks": {"ID": {"extents": …}}}`,
      { file, field: 'extents' },
    )
  }
  const { sizeBytes } = unnamed
  if (sizeBytes === null || !image || image.sizeBytes === null) return
  if (sizeBytes !== image.sizeBytes) {
    throw new BackupError(
      'CHANGED_BLOCKS_INVALID',
      `read the changed blocks of ${file}: size: the list is for a disk of ${sizeBytes} bytes, ${image.path} has ${image.sizeBytes}`,
      { file, field: 'size', size_bytes: String(sizeBytes), image: image.path },
    )
  }
}

async function baseId(services: Services, text: string): Promise<string> {
  try {
    return lastPart((await findBackup(services, text)).name)
  } catch (thrown) {
    if (!(thrown instanceof BackupError) || thrown.reason !== 'BACKUP_NOT_FOUND') throw thrown
    throw new BackupError('BASE_MISSING', `--base ${text}: ${thrown.message}`, { base: text })
  }
}
