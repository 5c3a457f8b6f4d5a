// The contract suite for every driver there is, each on the real thing.
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import {
  FolderDriver,
  findStorageDaemons,
  QemuDriver,
  QemuOffDriver,
  Qmp,
  type Vm,
} from '@blockferry/hypervisor'
import { buildGuest, Guest } from './guest.ts'
import { type HypervisorSubject, hypervisorContract, pairOffset } from './hypervisor_contract.ts'

const run = promisify(execFile)
const mebibyte = 2 ** 20
const uuid = '7a0e0a55-0000-4000-8000-0000000000c0'

const newFolder = () => mkdtemp(join(tmpdir(), 'bf-hc-'))

/** Somebody who respects QEMU's locks is refused, and that is fine. */
async function tryWrite(format: string, path: string, pattern: number): Promise<void> {
  await run('qemu-io', ['-f', format, '-c', `write -P ${pattern} 0 1M`, path]).catch(() => {})
}

/** Files and daemons below `folder`. */
async function leftIn(folder: string): Promise<string[]> {
  const files = await readdir(folder).catch((): string[] => [])
  const daemons = await findStorageDaemons(folder)
  return [...files, ...daemons.map(({ pid }) => `storage daemon ${pid}`)]
}

hypervisorContract('folder of raw and qcow2', async () => {
  const folder = await newFolder()
  const vm = join(folder, 'vms', 'one')
  const runFolder = join(folder, 'run')
  await mkdir(vm, { recursive: true })
  await run('qemu-img', ['create', '-q', '-f', 'raw', join(vm, 'a.raw'), '8M'])
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', join(vm, 'b.qcow2'), '8M'])
  await writeFile(join(vm, 'vm.yaml'), 'name: The one')
  return {
    vmIdentity: 'one',
    vmName: 'The one',
    diskIds: ['a.raw', 'b.qcow2'],
    open: (tag) => new FolderDriver({ folder: join(folder, 'vms'), runFolder, tag }),
    write: (pattern) => tryWrite('raw', join(vm, 'a.raw'), pattern),
    writePairs: null,
    leftovers: () => leftIn(runFolder),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  }
})

hypervisorContract('folder whose images somebody writes without locks', async () => {
  const folder = await newFolder()
  const vm = join(folder, 'vms', 'one')
  const runFolder = join(folder, 'run')
  await mkdir(vm, { recursive: true })
  const images = ['a.raw', 'b.raw'].map((name) => join(vm, name))
  for (const image of images) await writeFile(image, Buffer.alloc(8 * mebibyte))
  return {
    vmIdentity: 'one',
    vmName: 'one',
    diskIds: ['a.raw', 'b.raw'],
    open: (tag) => new FolderDriver({ folder: join(folder, 'vms'), runFolder, tag }),
    write: async (pattern) => {
      await writeFile(images[0] ?? '', Buffer.alloc(8 * mebibyte, pattern))
    },
    writePairs: null,
    leftovers: () => leftIn(runFolder),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  }
})

hypervisorContract('QEMU machine that is off', async () => {
  const folder = await newFolder()
  const runFolder = join(folder, 'run')
  const disks = ['vda', 'vdb'].map((id) => ({
    ...{ id, format: 'qcow2', sizeBytes: 8 * mebibyte, location: join(folder, `${id}.qcow2`) },
  }))
  for (const { location } of disks) {
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', location, '8M'])
  }
  const known: Vm = {
    ...{ identity: uuid, name: 'off', state: 'running', disks, uncovered: [], refused: null },
    config: { driver: 'qemu', commandLine: ['qemu-system-x86_64'], diskFiles: {} },
  }
  return {
    vmIdentity: uuid,
    vmName: 'off',
    diskIds: ['vda', 'vdb'],
    open: (tag) => new QemuOffDriver({ runFolder, tag, known: () => [known] }),
    write: (pattern) => tryWrite('qcow2', disks[0]?.location ?? '', pattern),
    writePairs: null,
    leftovers: () => leftIn(runFolder),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  }
})

hypervisorContract('QEMU machine that runs', async (): Promise<HypervisorSubject> => {
  const folder = await newFolder()
  const places = { runFolder: join(folder, 'run'), fleeceFolder: join(folder, 'fleece') }
  const guest = await Guest.start({
    files: await buildGuest(),
    folder: join(folder, 'vms', 'live'),
    name: 'live',
    uuid,
    disks: ['a', 'b'].map((name) => ({
      ...{ path: join(folder, `${name}.qcow2`), format: 'qcow2', sizeBytes: 16 * mebibyte },
      filesystem: false,
    })),
  })
  const direct = (device: string) =>
    `dd of=/dev/${device} bs=512 seek=${pairOffset / 512} oflag=direct 2>/dev/null`
  return {
    vmIdentity: uuid,
    vmName: 'live',
    diskIds: ['disk0', 'disk1'],
    open: (tag) =>
      new QemuDriver({
        tag,
        monitors: { folder: join(folder, 'vms') },
        runFolder: places.runFolder,
        fleece: { folder: places.fleeceFolder, freeBytesMin: mebibyte },
      }),
    write: async (pattern) => {
      const bytes = `\\${pattern.toString(8)}`
      await guest.sh(
        `tr '\\0' '${bytes}' </dev/zero | dd of=/dev/vda bs=64k count=8 oflag=direct iflag=fullblock`,
      )
    },
    writePairs: async () => {
      await guest.sh(`rm -f /tmp/stop; (
        i=0
        while [ ! -e /tmp/stop ]; do
          i=$((i + 1))
          printf '%-512d' $i | ${direct('vda')}
          printf '%-512d' $i | ${direct('vdb')}
          [ $i = 1 ] && : > /tmp/started
        done
      ) >/dev/null 2>&1 & while [ ! -e /tmp/started ]; do sleep 0.05; done`)
      return async () => {
        await guest.sh('touch /tmp/stop; sleep 0.3')
      }
    },
    leftovers: async () => {
      await using qmp = await Qmp.connect(guest.qmpPath)
      const nodes = await qmp.execute<{ 'node-name': string }[]>('query-named-block-nodes')
      const names = nodes.map((node) => node['node-name']).filter((one) => one.startsWith('bf.'))
      const { status } = await qmp.execute<{ status: string }>('query-status')
      return [
        ...names,
        ...(status === 'running' ? [] : [`the guest is ${status}`]),
        ...(await leftIn(places.runFolder)),
        ...(await leftIn(places.fleeceFolder)),
      ]
    },
    [Symbol.asyncDispose]: async () => {
      await guest.kill()
      await rm(folder, { recursive: true })
    },
  }
})
