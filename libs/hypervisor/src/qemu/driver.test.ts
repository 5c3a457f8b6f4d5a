// What a crash leaves on QEMUs without a guest: no firmware runs, so they start at once.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { sleep } from '@blockferry/core'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Qmp } from '../qmp.ts'
import { QemuDriver } from './driver.ts'
import { type HoldReport, hold } from './hold.ts'
import { taggedName } from './names.ts'

const tag = '0a1b2c'
const pointId = '00000000000a'
const { signal } = new AbortController()

let folder: string
let children: ChildProcess[]
let hanging: Server | null
let clients: Socket[]

beforeEach(async () => {
  folder = await mkdtemp('/tmp/blockferry-driver-')
  await mkdir(join(folder, 'run'))
  children = []
  hanging = null
  clients = []
})
afterEach(async () => {
  for (const child of children) {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) {
      await new Promise((done) => child.once('exit', done))
    }
  }
  for (const client of clients) client.destroy()
  if (hanging) await new Promise((done) => hanging?.close(done))
  await rm(folder, { recursive: true, force: true })
})

const monitorOf = (name: string) => join(folder, 'vms', name, 'qmp.sock')

async function startQemu(name: string): Promise<string> {
  const monitor = monitorOf(name)
  await mkdir(join(folder, 'vms', name), { recursive: true })
  const machine = ['-M', 'none', '-nodefaults', '-display', 'none', '-S']
  const qmp = ['-qmp', `unix:${monitor},server=on,wait=off`]
  children.push(spawn('qemu-system-x86_64', [...machine, ...qmp], { stdio: 'ignore' }))
  for (let attempt = 0; ; attempt++) {
    try {
      await using _ = await Qmp.connect(monitor)
      return monitor
    } catch (thrown) {
      if (attempt > 400) throw thrown
      await sleep(50)
    }
  }
}

/** A monitor that takes clients and never greets them. */
async function startHanging(name: string): Promise<void> {
  await mkdir(join(folder, 'vms', name), { recursive: true })
  hanging = createServer((socket) => clients.push(socket))
  await new Promise<void>((done) => hanging?.listen(monitorOf(name), done))
}

const driver = () =>
  new QemuDriver({
    tag,
    monitors: { folder: join(folder, 'vms') },
    runFolder: join(folder, 'run'),
    fleece: { folder: join(folder, 'fleece'), freeBytesMin: 0 },
  })

const statusOf = async (monitor: string) => {
  await using qmp = await Qmp.connect(monitor)
  return (await qmp.execute<{ status: string }>('query-status')).status
}

describe('hold', () => {
  it('takes its mark away before it says that it is done, which may end its process', async () => {
    const monitor = await startQemu('a')
    const markPath = join(folder, 'run', taggedName(tag, pointId, 'hold'))
    const job = {
      ...{ vmName: 'a', monitor, qemu: null, agentSocket: null, pause: true },
      ...{ drives: [], actions: [], markPath },
    }
    const marked = new Map<HoldReport['event'], boolean>()
    await hold(job, (report) => marked.set(report.event, existsSync(markPath)))
    expect(marked.get('step')).toBe(true)
    expect(marked.get('done')).toBe(false)
  }, 30_000)
})

describe('QemuDriver', () => {
  it('lets a VM go on whose guard and snapshot service were killed, when it looks for points', async () => {
    const monitor = await startQemu('a')
    const markPath = join(folder, 'run', taggedName(tag, pointId, 'hold'))
    const job = {
      ...{ vmName: 'a', monitor, qemu: null, agentSocket: null, pause: true },
      ...{ drives: [], actions: [], markPath },
    }
    await writeFile(markPath, JSON.stringify({ guard: { pid: 1, startTicks: 'none' }, job }))
    expect(await statusOf(monitor)).toBe('prelaunch')
    await using looking = driver()
    await looking.findPoints(signal)
    expect(await statusOf(monitor)).toBe('running')
    expect(await readdir(join(folder, 'run'))).toEqual([])
  }, 30_000)

  it('removes a point without a record although another monitor hangs', async () => {
    await startHanging('a')
    const monitor = await startQemu('b')
    const name = taggedName(tag, pointId, 's0')
    const nodes = async () => {
      await using qmp = await Qmp.connect(monitor)
      const found = await qmp.execute<{ 'node-name': string }[]>('query-named-block-nodes')
      return found.map((node) => node['node-name'])
    }
    {
      await using qmp = await Qmp.connect(monitor)
      await qmp.execute('blockdev-add', { driver: 'null-co', 'node-name': name, size: 1024 })
    }
    expect(await nodes()).toEqual([name])
    await using left = driver()
    await expect(left.releasePoint(pointId, 'committed', signal)).rejects.toMatchObject({
      reason: 'HOST_UNREACHABLE',
    })
    expect(await nodes()).toEqual([])
  }, 30_000)
})
