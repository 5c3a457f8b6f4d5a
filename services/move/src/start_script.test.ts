import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ImageFormatName } from '@blockferry/proto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startScript } from './start_script.ts'

const odd = `vm 'q' "d" $(touch pwned) \`x\` „ü" a,b=c\nnext ; \\ #`
let folder: string

beforeAll(() => {
  folder = mkdtempSync('/tmp/bf-script-')
})
afterAll(() => rmSync(folder, { recursive: true }))

interface Want {
  commandLine: string[]
  diskFiles: Record<string, string>
  images?: { disk: string; path: string; format: ImageFormatName }[]
}

/** Runs the script with a program that prints its arguments, as a user would from elsewhere. */
function argumentsOf({ commandLine, diskFiles, images }: Want, more: string[] = []): string[] {
  const place = join(folder, `place ${odd.replaceAll('/', '')}`)
  mkdirSync(place, { recursive: true })
  const program = join(place, 'print')
  writeFileSync(program, '#!/bin/sh\nfor each do printf "%s\\0" "$each"; done\n')
  chmodSync(program, 0o755)
  const script = join(place, 'start.sh')
  const restored = (format: 'raw' | 'qcow2') =>
    Object.keys(diskFiles).map((disk) => ({ disk, path: join(place, `${disk}.img`), format }))
  const text = startScript({
    scriptPath: script,
    vmName: odd,
    backupId: 'b1',
    vmConfigJson: JSON.stringify({
      driver: 'qemu',
      commandLine: [program, ...commandLine],
      diskFiles,
    }),
    disks: Object.keys(diskFiles),
    images: images ?? restored('qcow2'),
  })
  if (text === null) throw new Error('no script')
  writeFileSync(script, text, { mode: 0o755 })
  execFileSync('sh', ['-n', script])
  const printed = execFileSync(script, more, { cwd: '/', encoding: 'utf8', stdio: 'pipe' })
  return printed.split('\0').slice(0, -1)
}

const raw = (disk: string) => ({ disk, path: `/new/${disk}`, format: 'raw' as const })

describe('start script', () => {
  it('says vpc where users say vhd', () => {
    const commandLine = [
      ...['-blockdev', 'driver=file,node-name=f0,filename=/vm/a'],
      ...['-blockdev', 'driver=qcow2,node-name=d0,file=f0'],
      ...['-drive', 'file=/vm/b,format=raw,if=virtio'],
    ]
    const images = ['a', 'b'].map((disk) => ({
      disk,
      path: `/new/${disk}`,
      format: 'vhd' as const,
    }))
    expect(argumentsOf({ commandLine, diskFiles: { a: '/vm/a', b: '/vm/b' }, images })).toEqual([
      ...['-blockdev', 'driver=file,node-name=f0,filename=/new/a'],
      ...['-blockdev', 'driver=vpc,node-name=d0,file=f0'],
      ...['-drive', 'file=/new/b,format=vpc,if=virtio'],
    ])
  })

  it('gives every argument to QEMU as it was, whatever is in it', () => {
    const commandLine = ['-name', odd, '-append', '', '-machine', 'q35', '-uuid', 'u', '-m', '1G']
    expect(argumentsOf({ commandLine, diskFiles: {} }, ['-display', 'none'])).toEqual([
      ...commandLine,
      '-display',
      'none',
    ])
  })

  it('puts new images and their format into file and format nodes', () => {
    const commandLine = [
      '-blockdev',
      'driver=file,node-name=f0,filename=/vm/a,,b.qcow2,discard=unmap',
      '-blockdev',
      'driver=qcow2,node-name=d0,file=f0,discard=unmap,lazy-refcounts=on,backing=base',
      '-blockdev',
      'driver=qcow2,node-name=base,file=basef',
      '-blockdev',
      'driver=file,node-name=basef,filename=/vm/base.qcow2',
      '-blockdev',
      '{"driver":"raw","node-name":"d1","file":{"driver":"host_device","filename":"/dev/v\\"g"},"offset":512}',
      '-device',
      'virtio-blk-pci,drive=d0',
    ]
    const diskFiles = { d0: '/vm/a,b.qcow2', d1: '/dev/v"g' }
    const images = [raw('d0'), { disk: 'd1', path: '/new/d,1', format: 'qcow2' as const }]
    expect(argumentsOf({ commandLine, diskFiles, images })).toEqual([
      '-blockdev',
      'driver=file,node-name=f0,filename=/new/d0,discard=unmap',
      '-blockdev',
      'driver=raw,node-name=d0,file=f0,discard=unmap',
      '-blockdev',
      '{"driver":"qcow2","node-name":"d1","file":{"driver":"file","filename":"/new/d,1"}}',
      '-device',
      'virtio-blk-pci,drive=d0',
    ])
  })

  it('adds a format node where the machine read the file without one', () => {
    const commandLine = ['-blockdev', 'driver=file,node-name=disk0,filename=/vm/d.raw']
    expect(argumentsOf({ commandLine, diskFiles: { a: '/vm/d.raw' } })).toEqual([
      '-blockdev',
      'driver=file,node-name=restored-1,filename=./a.img',
      '-blockdev',
      'driver=qcow2,node-name=disk0,file=restored-1',
    ])
  })

  it('puts new images into drives, -hda and a bare image', () => {
    const commandLine = [
      '-drive',
      'file=/vm/a.raw,format=raw,if=virtio,cache=none',
      '-drive',
      'if=none,id=x,file.driver=file,file.filename=/vm/b',
      '-hdb',
      '/vm/c',
      '-nographic',
      '/vm/d',
    ]
    const diskFiles = { a: '/vm/a.raw', b: '/vm/b', c: '/vm/c', d: '/vm/d' }
    expect(argumentsOf({ commandLine, diskFiles })).toEqual([
      '-drive',
      'file=./a.img,format=qcow2,if=virtio,cache=none',
      '-drive',
      'if=none,id=x,file.driver=file,file.filename=./b.img,format=qcow2',
      '-drive',
      'file=./c.img,format=qcow2,index=1,media=disk',
      '-nographic',
      '-drive',
      'file=./d.img,format=qcow2,index=0,media=disk',
    ])
  })

  it('takes nothing that belongs to the original', () => {
    const commandLine = [
      '-daemonize',
      '-S',
      '-incoming',
      'defer',
      '-pidfile',
      '/run/vm/pid',
      '-D',
      '/var/log/q.log',
      '-qmp',
      'unix:/run/vm/qmp.sock,server=on,wait=off',
      '--monitor',
      'tcp:127.0.0.1:4444,server,nowait',
      '-serial',
      'file:/var/log/console.log',
      '-serial',
      'mon:stdio',
      '-chardev',
      'socket,path=/run/vm/a,,b/qmp.sock,server=on,wait=off,id=qga0',
      '-chardev',
      'socket,id=con,host=127.0.0.1,port=5555,server=on,wait=off',
      '-chardev',
      'socket,id=tpm,path=/run/swtpm.sock',
      '-chardev',
      'file,id=log,path=/var/log/console.log',
      '-vnc',
      ':1,password=on',
      '-netdev',
      'user,id=n0,hostfwd=tcp::2222-:22,restrict=off',
      '-device',
      'virtio-net,netdev=n0,mac=52:54:00:12:34:56',
    ]
    expect(argumentsOf({ commandLine, diskFiles: {} })).toEqual([
      '-pidfile',
      './pid',
      '-D',
      './q.log',
      '-qmp',
      'unix:./qmp.sock,server=on,wait=off',
      '-monitor',
      'unix:./monitor.sock,server=on,wait=off',
      '-serial',
      'file:./console.log',
      '-serial',
      'mon:stdio',
      '-chardev',
      'socket,server=on,wait=off,id=qga0,path=./2-qmp.sock',
      '-chardev',
      'socket,id=con,server=on,wait=off,path=./con.sock',
      '-chardev',
      'socket,id=tpm,path=/run/swtpm.sock',
      '-chardev',
      'file,id=log,path=./2-console.log',
      '-vnc',
      'unix:./vnc.sock,password=on',
      '-netdev',
      'user,id=n0,restrict=off',
      '-device',
      'virtio-net,netdev=n0,mac=52:54:00:12:34:56',
    ])
  })

  it('does not start the original disks when only some were restored', () => {
    const commandLine = ['-drive', 'file=/vm/a', '-drive', 'file=/vm/b']
    const diskFiles = { a: '/vm/a', [`b ${odd}`]: '/vm/b' }
    expect(() => argumentsOf({ commandLine, diskFiles, images: [raw('a')] })).toThrow(
      /not restored/,
    )
  })

  it('does not start when a restored disk has no place in the command line', () => {
    const text = startScript({
      scriptPath: '/x/start.sh',
      vmName: odd,
      backupId: 'b',
      vmConfigJson: JSON.stringify({
        commandLine: ['qemu', '-drive', 'file=/vm/a'],
        diskFiles: {},
      }),
      disks: ['a'],
      images: [raw('a')],
    })
    expect(text).toMatch(/^exit 1$/m)
  })

  it('makes none for a machine without command line', () => {
    const request = { scriptPath: '/x/start.sh', vmName: odd, backupId: 'b', disks: [], images: [] }
    for (const vmConfigJson of [
      '',
      '{}',
      '[]',
      'null',
      '{"commandLine":[1]}',
      '{"commandLine":[]}',
    ]) {
      expect(startScript({ ...request, vmConfigJson }), vmConfigJson).toBeNull()
    }
  })
})
