// Machines and hosts that cannot be backed up as they are.
import { chmod, rename } from 'node:fs/promises'
import { join } from 'node:path'
import {
  type Case,
  type Ground,
  homeOf,
  isRoot,
  type Refusal,
  refusedBackup,
  uuidOf,
} from './ground.ts'
import { IdleMachine } from './idle_machine.ts'

/** Modes stop root only when it has given up the right to pass them over. */
const withoutOverride = isRoot
  ? ['setpriv', '--bounding-set=-dac_override,-dac_read_search', '--']
  : []

async function withoutPermission(ground: Ground): Promise<Refusal> {
  const { stand, guest, vmName } = ground.lab
  await stand.stopService('snapshot')
  await stand.startService('snapshot', withoutOverride)
  try {
    await chmod(guest.qmpPath, 0)
    return await refusedBackup(ground, { vm: vmName })
  } finally {
    await chmod(guest.qmpPath, 0o755)
    await stand.stopService('snapshot')
    await stand.startService('snapshot')
  }
}

async function folderGone(ground: Ground): Promise<Refusal> {
  const folder = join(ground.lab.folder, 'vms')
  await rename(folder, `${folder}-away`)
  try {
    return await refusedBackup(ground, { vm: ground.lab.vmName })
  } finally {
    await rename(`${folder}-away`, folder)
  }
}

async function hangs(ground: Ground): Promise<Refusal> {
  ground.lab.guest.signal('SIGSTOP')
  try {
    return await refusedBackup(ground, { vm: ground.lab.vmName })
  } finally {
    ground.lab.guest.signal('SIGCONT')
  }
}

/** A machine that the host has reported is looked for as one that is off, so its image is named. */
async function machineGone(ground: Ground): Promise<Refusal> {
  const uuid = uuidOf(ground, 1)
  {
    await using _ = await IdleMachine.start(homeOf(ground, 'brief'), 'brief', uuid)
    await ground.lab.stand.snapshot.getVm({ name: uuid })
  }
  return await refusedBackup(ground, { vm: uuid })
}

async function withoutUuid(ground: Ground): Promise<Refusal> {
  await using _ = await IdleMachine.start(homeOf(ground, 'bare'), 'nameless', null)
  return await refusedBackup(ground, { vm: 'nameless' })
}

async function sameUuid(ground: Ground): Promise<Refusal> {
  await using _ = await IdleMachine.start(homeOf(ground, 'twin'), 'twin', ground.lab.uuid)
  return await refusedBackup(ground, { vm: 'twin' })
}

export const badMachines: Case[] = [
  {
    name: 'unknown VM',
    expects: { reason: 'VM_NOT_FOUND', says: /"nobody".*list the VMs/ },
    work: (ground) => refusedBackup(ground, { vm: 'nobody' }),
  },
  {
    name: 'socket without permission',
    expects: { reason: 'HOST_DENIED', says: /qmp\.sock.*permission denied.*run as the user/ },
    work: withoutPermission,
  },
  {
    name: 'host down: its folder is gone',
    expects: { reason: 'HOST_UNREACHABLE', says: /hosts\/here.*\/vms.*ENOENT.*name the folder/ },
    work: folderGone,
  },
  {
    name: 'host down: QEMU hangs',
    expects: { reason: 'HOST_UNREACHABLE', says: /qmp\.sock.*see what QEMU waits for/ },
    work: hangs,
  },
  {
    name: 'host down: QEMU and its image are gone',
    expects: { reason: 'IMAGE_MISSING', says: /disk\.qcow2.*correct the path or bring it back/ },
    work: machineGone,
  },
  {
    name: 'VM without UUID',
    expects: { reason: 'VM_WITHOUT_UUID', says: /nameless.*add .*-uuid/ },
    work: withoutUuid,
  },
  {
    name: 'two VMs with one UUID',
    expects: { reason: 'VM_UUID_DUPLICATE', says: /twin.*web01.*give one of them another -uuid/ },
    work: sameUuid,
  },
]
