import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { GuestAgent } from './qemu/agent.ts'
import { Qmp } from './qmp.ts'

const greeting = '{"QMP": {"version": {}, "capabilities": []}}\n'
const capabilities = '{"return": {}, "id": 1}\n'

let folder: string
let path: string
let server: Server
let sockets: Socket[]

beforeEach(async () => {
  folder = await mkdtemp('/tmp/blockferry-qmp-')
  path = join(folder, 'qmp.sock')
  sockets = []
})
afterEach(async () => {
  for (const socket of sockets) socket.destroy()
  await new Promise((done) => server.close(done))
  await rm(folder, { recursive: true, force: true })
})

/** A peer that says `first` to whoever connects, and answers each line with what `answer` says. */
async function serve(first: string, answer: (line: string) => string): Promise<void> {
  server = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => {})
    socket.write(first)
    socket.on('data', (bytes) => socket.write(answer(bytes.toString('latin1')), 'latin1'))
  })
  await new Promise<void>((done) => server.listen(path, done))
}

/** Sends spaces without a newline until the other side has had enough. */
async function flood(isEnough: () => boolean): Promise<void> {
  const spaces = Buffer.alloc(1 << 20, 0x20)
  for (let count = 0; count < 64 && !isEnough(); count++) {
    await new Promise((done) => sockets[0]?.write(spaces, done))
  }
}

const isSetUp = (line: string) => line.includes('qmp_capabilities')

describe('a monitor that lies', () => {
  it.each([
    ['null'],
    ['7'],
    ['"QMP"'],
    ['[]'],
    ['{"event": "STOP"}'],
    ['{"event": "STOP", "timestamp": null}'],
    ['{"error": 5, "id": 2}'],
    ['not JSON'],
  ])('ends in a failure of the command when it says %s', async (line) => {
    await serve(greeting, (asked) => (isSetUp(asked) ? capabilities : `${line}\n`))
    await using qmp = await Qmp.connect(path)
    await expect(qmp.execute('query-status', {}, { deadlineMs: 500 })).rejects.toThrow(
      /query-status|does not speak QMP/,
    )
  })

  it('is left when a line has no end', async () => {
    await serve(greeting, (asked) => (isSetUp(asked) ? capabilities : ''))
    await using qmp = await Qmp.connect(path)
    const refused = expect(qmp.execute('query-status')).rejects.toThrow(/does not speak QMP/)
    await flood(() => qmp.ended !== null)
    await refused
  })
})

/** A guest agent that is in step and then says `line` to every command. */
async function serveAgent(line: string): Promise<void> {
  await serve('', (asked) => {
    const id = /"id":\s*(\d+)/.exec(asked)?.[1]
    return id ? `\xff{"return": ${id}}\n` : line
  })
}

describe('a guest agent that lies', () => {
  it('is left when a line has no end', async () => {
    await serveAgent('')
    const agent = await GuestAgent.connect(path, 2_000)
    const refused = expect(agent.execute('guest-fsfreeze-status', 5_000)).rejects.toThrow(/no end/)
    await flood(() => agent.ended !== null)
    await refused
  })

  it.each([['null'], ['{"error": 5}']])(
    'makes only the command fail when it says %s',
    async (line) => {
      await serveAgent(`${line}\n`)
      const agent = await GuestAgent.connect(path, 2_000)
      await expect(agent.execute('guest-fsfreeze-status', 500)).rejects.toThrow(/guest/)
      agent.close()
    },
  )
})
