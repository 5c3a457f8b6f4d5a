// Images that are not what they are said to be, or not free to be read.
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { snapshot } from '@blockferry/proto'
import { type Case, type Ground, type Refusal, refusedBackup } from './ground.ts'

const execute = promisify(execFile)

/** Work in a folder that is gone afterwards. */
async function inFolder<T>({ lab }: Ground, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(lab.folder, 'images-'))
  try {
    return await work(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

async function createImage(path: string, format: string): Promise<string> {
  await execute('qemu-img', ['create', '-q', '-f', format, path, '4M'])
  await execute('qemu-io', ['-f', format, '-c', 'write -P 7 0 3M', path])
  return path
}

const formatWrong = (ground: Ground) =>
  inFolder(ground, async (folder) => {
    await mkdir(join(folder, 'mistaken'))
    await createImage(join(folder, 'mistaken', 'root.qcow2'), 'qcow2')
    const yaml = 'disks:\n  - file: root.qcow2\n    format: vmdk\n'
    await writeFile(join(folder, 'mistaken', 'vm.yaml'), yaml)
    const { stand } = ground.lab
    await stand.snapshot.createHost(
      snapshot.CreateHostRequest.create({
        hostId: 'folder',
        host: { platform: { $case: 'folder', value: { folder } } },
      }),
    )
    try {
      return await refusedBackup(ground, { vm: 'mistaken' })
    } finally {
      await stand.snapshot.deleteHost({ name: 'hosts/folder' })
    }
  })

const refusedImage = (ground: Ground, make: (path: string) => Promise<unknown>, name: string) =>
  inFolder(ground, async (folder): Promise<Refusal> => {
    const path = join(folder, name)
    await make(path)
    return await refusedBackup(ground, { vm: 'images', images: [path] })
  })

async function createTruncated(path: string): Promise<void> {
  await createImage(path, 'qcow2')
  await truncate(path, Math.floor((await stat(path)).size / 2))
}

export const badImages: Case[] = [
  {
    name: 'wrong format: vmdk in the YAML, qcow2 in the file',
    expects: {
      reason: 'IMAGE_FORMAT_WRONG',
      says: /root\.qcow2 is qcow2, not vmdk; correct "format"/,
    },
    work: formatWrong,
  },
  {
    name: 'a format that cannot be read: QED',
    expects: { reason: 'DISK_FORMAT_UNSUPPORTED', says: /disk\.qed.*qed.*convert it to qcow2/ },
    work: (ground) => refusedImage(ground, (path) => createImage(path, 'qed'), 'disk.qed'),
  },
  {
    name: 'truncated qcow2',
    expects: { reason: 'IMAGE_DAMAGED', says: /disk\.qcow2.*cut off.*restore it from a backup/ },
    work: (ground) => refusedImage(ground, createTruncated, 'disk.qcow2'),
  },
  {
    name: 'image missing',
    expects: { reason: 'IMAGE_MISSING', says: /disk\.raw does not exist; correct the path/ },
    work: (ground) => refusedImage(ground, async () => {}, 'disk.raw'),
  },
  {
    name: 'image in use',
    expects: { reason: 'IMAGE_IN_USE', says: /system\.qcow2.*shut the machine down/ },
    work: (ground) =>
      refusedBackup(ground, {
        vm: 'images',
        images: [join(ground.lab.guest.folder, 'system.qcow2')],
      }),
  },
]
