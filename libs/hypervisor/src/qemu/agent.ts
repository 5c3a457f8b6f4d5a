// A client of the QEMU guest agent. The channel serves one client at a time and
// keeps answers meant for earlier ones, so each session begins with a delimited
// sync and discards what comes before its answer.
import type { Socket } from 'node:net'
import { after, monotonicMs, within } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { openUnixSocket } from '../qmp.ts'

/** The agent answered that it could not do it. */
export class AgentRefusal extends Error {
  constructor(command: string, description: string) {
    super(`guest agent command ${command}: ${description}`)
    this.name = 'AgentRefusal'
  }
}

// What a guest says is not to be trusted: a line without end would take all memory of the guard.
const lineSizeMax = 2 ** 20

interface Pending {
  command: string
  resolve(value: unknown): void
  reject(error: Error): void
}

export class GuestAgent {
  readonly path: string
  ended: BackupError | null = null
  #socket: Socket
  #buffer = Buffer.alloc(0)
  // The agent answers in order and its answers carry no id.
  #pending: Pending[] = []
  #syncId: number
  #synced = Promise.withResolvers<void>()
  #isSynced = false

  private constructor(path: string, socket: Socket) {
    this.path = path
    this.#socket = socket
    // Any number that an earlier client did not use; the agent takes 63 bits, JSON 53.
    this.#syncId = Math.floor(monotonicMs() * 1000) + process.pid * 1_000_000_000
    this.#synced.promise.catch(() => {})
    socket.on('data', (bytes: Buffer) => this.#receive(bytes))
    socket.on('error', (error) => this.#end(error.message))
    socket.on('close', () => this.#end('the connection was closed'))
  }

  /** Errors: AGENT_UNREACHABLE when nobody answers in `syncMs`. */
  static async connect(path: string, syncMs: number): Promise<GuestAgent> {
    const startMs = monotonicMs()
    const socket = await openUnixSocket(path, syncMs).catch((thrown) => {
      throw unreachable(path, thrown instanceof Error ? thrown.message : String(thrown))
    })
    const agent = new GuestAgent(path, socket)
    // 0xFF makes the agent drop whatever an earlier client left half-sent.
    socket.write(Buffer.from([0xff]))
    agent.#send('guest-sync-delimited', { id: agent.#syncId })
    const leftMs = Math.max(1, syncMs - (monotonicMs() - startMs))
    try {
      await within(leftMs, agent.#synced.promise, () =>
        unreachable(path, `silent for ${syncMs} ms`),
      )
    } catch (thrown) {
      agent.close()
      throw thrown
    }
    return agent
  }

  /**
   * Errors: AgentRefusal when the agent says no; AGENT_UNREACHABLE when it does not answer in
   * time. The command stays with the agent then, and later answers still find their commands.
   */
  execute<T = unknown>(command: string, deadlineMs: number): Promise<T> {
    if (this.ended) return Promise.reject(this.ended)
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    const cancelDeadline = after(deadlineMs, () =>
      reject(unreachable(this.path, `${command} was not answered in ${Math.round(deadlineMs)} ms`)),
    )
    this.#pending.push({ command, resolve: resolve as (value: unknown) => void, reject })
    this.#send(command, {})
    return promise.finally(cancelDeadline)
  }

  close(): void {
    this.#end('the connection was closed by us')
  }

  #send(command: string, args: Record<string, unknown>): void {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`)
  }

  #receive(bytes: Buffer): void {
    this.#buffer = Buffer.concat([this.#buffer, bytes])
    if (this.#buffer.length > lineSizeMax) this.#end('its answer has no end')
    while (!this.ended) {
      const end = this.#buffer.indexOf(0x0a)
      if (end < 0) return
      const line = this.#buffer.subarray(0, end)
      this.#buffer = this.#buffer.subarray(end + 1)
      this.#answer(line)
    }
  }

  #answer(line: Buffer): void {
    const delimiter = line.lastIndexOf(0xff)
    const message = parse(line.subarray(delimiter + 1).toString())
    if (!this.#isSynced) {
      // Everything before the delimited answer with our id was meant for an earlier client.
      if (delimiter < 0 || message?.return !== this.#syncId) return
      this.#isSynced = true
      this.#synced.resolve()
      return
    }
    const pending = message && this.#pending.shift()
    if (!pending) return
    if (message.error) pending.reject(new AgentRefusal(pending.command, String(message.error.desc)))
    else pending.resolve(message.return)
  }

  #end(cause: string): void {
    if (this.ended) return
    this.ended = unreachable(this.path, cause)
    this.#socket.destroy()
    this.#synced.reject(this.ended)
    for (const pending of this.#pending) pending.reject(this.ended)
    this.#pending = []
  }
}

function parse(text: string): { return?: unknown; error?: { desc: string } } | null {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

const unreachable = (path: string, cause: string) =>
  new BackupError(
    'AGENT_UNREACHABLE',
    `guest agent at ${path}: ${cause}; is qemu-guest-agent running in the guest?`,
    { path, cause },
  )
