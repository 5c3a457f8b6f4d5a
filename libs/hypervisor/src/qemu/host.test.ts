import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { QemuHost } from './host.ts'
import { Monitors } from './monitors.ts'
import { processOfSocket, qemuProcesses } from './process.ts'

/** A process that is called like a QEMU and answers every command with an empty object. */
const strangeQemu = `
  const { createServer } = require('node:net')
  const [path] = process.argv.slice(-1)[0].match(/[^:]*qmp.sock/)
  createServer((socket) => {
    socket.write('{"QMP": {}}\\n')
    socket.on('error', () => {})
    socket.on('data', (bytes) => {
      for (const [, id] of bytes.toString().matchAll(/"id":(\\d+)/g)) {
        socket.write(JSON.stringify({ return: {}, id: Number(id) }) + '\\n')
      }
    })
  }).listen(path, () => console.log('up'))
`
/** A process that only says on its command line that it serves a monitor. */
const impostor = "console.log('up'); setInterval(() => {}, 1000)"

let folder: string
let monitor: string
let children: ChildProcess[]

beforeEach(async () => {
  folder = await mkdtemp('/tmp/blockferry-host-')
  await mkdir(join(folder, 'vm'))
  monitor = join(folder, 'vm', 'qmp.sock')
  children = []
})
afterEach(async () => {
  for (const child of children) {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) {
      await new Promise((done) => child.once('exit', done))
    }
  }
  await rm(folder, { recursive: true, force: true })
})

async function start(script: string, name: string): Promise<number> {
  const child = spawn(process.execPath, ['-e', script, '--', '-qmp', `unix:${monitor}`], {
    argv0: name,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  children.push(child)
  for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
    if (line === 'up') break
  }
  return child.pid ?? 0
}

describe('QemuHost', () => {
  it('lists a machine that answers what QEMU would not as one that cannot be backed up', async () => {
    await start(strangeQemu, 'qemu-system-strange')
    const host = new QemuHost(new Monitors({ folder }))
    const [found] = await host.list(new AbortController().signal)
    expect(found?.vm.refused).toMatchObject({
      reason: 'HOST_UNREACHABLE',
      message: expect.stringContaining(monitor),
    })
  })
})

describe('processOfSocket', () => {
  it('takes the process that serves the monitor, not one that says so', async () => {
    await start(impostor, 'qemu-system-impostor')
    expect(await processOfSocket(await qemuProcesses(), monitor)).toBeNull()
    const pid = await start(strangeQemu, 'qemu-system-strange')
    await start(impostor, 'qemu-system-impostor')
    const found = await processOfSocket(await qemuProcesses(), monitor)
    expect(found).toMatchObject({ pid })
  })
})
