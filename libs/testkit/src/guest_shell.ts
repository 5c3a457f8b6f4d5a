import { connect, type Socket } from 'node:net'
import { within } from '@blockferry/core'

export interface ScriptResult {
  status: number
  output: string
}

/** The test guest's own channel: runs shell scripts in it, several at once if need be. */
export class GuestShell {
  #socket: Socket
  #buffer = ''
  #nextId = 1
  #pending = new Map<number, (result: ScriptResult | Error) => void>()

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.unref()
    socket.on('data', (text: string) => this.#receive(text))
    socket.on('error', () => {})
    socket.on('close', () => this.#end())
  }

  static connect(path: string): Promise<GuestShell> {
    return new Promise((resolve, reject) => {
      const socket = connect(path)
      socket.once('error', reject)
      socket.once('connect', () => {
        socket.off('error', reject)
        resolve(new GuestShell(socket))
      })
    })
  }

  /** Starts a script without waiting for its end. */
  send(script: string): number {
    const id = this.#nextId++
    this.#socket.write(`${id} ${Buffer.from(script).toString('base64')}\n`)
    return id
  }

  async run(script: string, deadlineMs: number): Promise<ScriptResult> {
    const { promise, resolve } = Promise.withResolvers<ScriptResult | Error>()
    const id = this.send(script)
    this.#pending.set(id, resolve)
    this.#socket.ref()
    try {
      const late = () => new Error(`in the guest, after ${deadlineMs} ms: ${script}`)
      const result = await within(deadlineMs, promise, late)
      if (result instanceof Error) throw result
      return result
    } finally {
      this.#pending.delete(id)
      if (this.#pending.size === 0) this.#socket.unref()
    }
  }

  close(): void {
    this.#socket.destroy()
    this.#end()
  }

  #end(): void {
    for (const settle of this.#pending.values()) settle(new Error('the test guest is gone'))
    this.#pending.clear()
  }

  #receive(text: string): void {
    this.#buffer += text
    for (;;) {
      const end = this.#buffer.indexOf('\n')
      if (end < 0) return
      const [id, status, output] = this.#buffer.slice(0, end).split(' ')
      this.#buffer = this.#buffer.slice(end + 1)
      this.#pending.get(Number(id))?.({
        status: Number(status),
        output: Buffer.from(output ?? '', 'base64').toString(),
      })
    }
  }
}
