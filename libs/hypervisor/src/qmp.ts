// A client of QMP, the JSON lines that QEMU and its storage daemon speak on a
// unix socket. A monitor serves one client at a time: a second one connects and
// then waits for a greeting that never comes, so every wait here has a deadline.
import { connect as connectSocket, type Socket } from 'node:net'
import { after, within } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'

export interface QmpEvent {
  event: string
  data: Record<string, unknown>
  /** QEMU's wall clock when it happened; only differences between two of them mean something. */
  timestampUs: number
}

/** The command reached QEMU and QEMU refused it. */
export class QmpRefusal extends Error {
  readonly command: string
  readonly errorClass: string
  readonly description: string

  constructor(command: string, errorClass: string, description: string) {
    super(`QMP command ${command}: ${description}`)
    this.name = 'QmpRefusal'
    this.command = command
    this.errorClass = errorClass
    this.description = description
  }
}

export interface QmpConnectOptions {
  /** How long to wait for the greeting. */
  greetingMs?: number
  signal?: AbortSignal
}

export interface QmpExecuteOptions {
  deadlineMs?: number
}

type QmpArguments = Record<string, unknown>

interface Pending {
  command: string
  resolve(value: unknown): void
  reject(error: Error): void
  cancelDeadline(): void
}

interface Waiter {
  matches(event: QmpEvent): boolean
  resolve(event: QmpEvent): void
  reject(error: Error): void
}

const greetingMsDefault = 5_000
const commandMsDefault = 10_000
// Events nobody waited for yet; a deletion's event can come before its command's answer.
const eventsKeptMax = 256
// Far more than QEMU says about hundreds of disks; without a limit a peer that never ends its line
// would take all memory.
const lineSizeMax = 16 * 2 ** 20

export class Qmp implements AsyncDisposable {
  readonly path: string
  /** The first error that ended the connection, or null while it is open. */
  ended: BackupError | null = null
  #socket: Socket
  #buffer = ''
  #nextId = 1
  #pending = new Map<number, Pending>()
  #events: QmpEvent[] = []
  #waiters = new Set<Waiter>()
  #listeners = new Set<(event: QmpEvent) => void>()
  #greeted = Promise.withResolvers<void>()

  private constructor(path: string, socket: Socket) {
    this.path = path
    this.#socket = socket
    this.#greeted.promise.catch(() => {})
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => this.#receive(text))
    socket.on('error', (error) => this.#end(error.message))
    socket.on('close', () => this.#end('the connection was closed'))
  }

  /** Errors: HOST_UNREACHABLE, HOST_DENIED. */
  static async connect(path: string, options: QmpConnectOptions = {}): Promise<Qmp> {
    const greetingMs = options.greetingMs ?? greetingMsDefault
    options.signal?.throwIfAborted()
    const qmp = new Qmp(path, await openUnixSocket(path, greetingMs))
    const abort = () => qmp.#end('the work was cancelled')
    options.signal?.addEventListener('abort', abort, { once: true })
    try {
      await within(greetingMs, qmp.#greeted.promise, () => heldByAnother(path))
      await qmp.execute('qmp_capabilities')
      return qmp
    } catch (thrown) {
      qmp.#end('the connection was given up')
      options.signal?.throwIfAborted()
      throw thrown
    } finally {
      options.signal?.removeEventListener('abort', abort)
    }
  }

  /** Errors: QmpRefusal when QEMU says no; HOST_UNREACHABLE when it does not answer in time. */
  execute<T = unknown>(
    command: string,
    args: QmpArguments = {},
    options: QmpExecuteOptions = {},
  ): Promise<T> {
    if (this.ended) return Promise.reject(this.ended)
    const id = this.#nextId++
    const deadlineMs = options.deadlineMs ?? commandMsDefault
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    const cancelDeadline = after(deadlineMs, () => {
      this.#pending.delete(id)
      reject(silent(this.path, command, deadlineMs))
    })
    this.#pending.set(id, {
      command,
      resolve: resolve as (value: unknown) => void,
      reject,
      cancelDeadline,
    })
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`)
    return promise
  }

  /** The first matching event, also one that came before the call and was not waited for. */
  waitFor(
    name: string,
    matches: (data: Record<string, unknown>) => boolean = () => true,
    deadlineMs: number = commandMsDefault,
  ): Promise<QmpEvent> {
    const isIt = (event: QmpEvent) => event.event === name && matches(event.data)
    const kept = this.#events.findIndex(isIt)
    if (kept >= 0) return Promise.resolve(this.#events.splice(kept, 1)[0] as QmpEvent)
    if (this.ended) return Promise.reject(this.ended)
    const { promise, resolve, reject } = Promise.withResolvers<QmpEvent>()
    const waiter: Waiter = { matches: isIt, resolve, reject }
    this.#waiters.add(waiter)
    return within(deadlineMs, promise, () =>
      silent(this.path, `event ${name}`, deadlineMs),
    ).finally(() => this.#waiters.delete(waiter))
  }

  /** Calls `listener` for every event from now on; the returned function ends that. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  close(): void {
    this.#end('the connection was closed by us')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }

  #receive(text: string): void {
    this.#buffer += text
    if (this.#buffer.length > lineSizeMax) this.#end(notQmp)
    if (this.ended || !text.includes('\n')) return
    for (;;) {
      const end = this.#buffer.indexOf('\n')
      if (end < 0) return
      const line = this.#buffer.slice(0, end)
      this.#buffer = this.#buffer.slice(end + 1)
      if (line.trim() !== '') this.#dispatch(line)
    }
  }

  #dispatch(line: string): void {
    const message = parseObject(line)
    if (message === null) this.#end(notQmp)
    else if ('QMP' in message) this.#greeted.resolve()
    else if (typeof message.event === 'string') this.#publish(eventOf(message))
    else this.#answer(message)
  }

  #answer(message: Record<string, unknown>): void {
    const pending = this.#pending.get(Number(message.id))
    if (!pending) return
    this.#pending.delete(Number(message.id))
    pending.cancelDeadline()
    const error = message.error as { class?: unknown; desc?: unknown } | undefined
    if (error) {
      pending.reject(new QmpRefusal(pending.command, String(error.class), String(error.desc)))
    } else pending.resolve(message.return)
  }

  #publish(event: QmpEvent): void {
    for (const listener of this.#listeners) listener(event)
    for (const waiter of this.#waiters) {
      if (!waiter.matches(event)) continue
      this.#waiters.delete(waiter)
      waiter.resolve(event)
      return
    }
    this.#events.push(event)
    if (this.#events.length > eventsKeptMax) this.#events.shift()
  }

  #end(cause: string): void {
    if (this.ended) return
    this.ended = new BackupError(
      'HOST_UNREACHABLE',
      `monitor ${this.path}: ${cause}; is the virtual machine still running?`,
      { path: this.path, cause },
    )
    this.#socket.destroy()
    this.#greeted.reject(this.ended)
    for (const pending of this.#pending.values()) {
      pending.cancelDeadline()
      pending.reject(this.ended)
    }
    this.#pending.clear()
    for (const waiter of this.#waiters) waiter.reject(this.ended)
    this.#waiters.clear()
  }
}

/** Connects; the failure is HOST_UNREACHABLE or HOST_DENIED with the path. */
export function openUnixSocket(path: string, deadlineMs: number): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  const socket = connectSocket(path)
  const refused = (error: NodeJS.ErrnoException) => reject(connectFailure(path, error))
  socket.once('error', refused)
  socket.once('connect', () => {
    socket.off('error', refused)
    resolve(socket)
  })
  return within(deadlineMs, promise, () => heldByAnother(path)).catch((thrown) => {
    socket.destroy()
    throw thrown
  })
}

function connectFailure(path: string, error: NodeJS.ErrnoException): BackupError {
  const metadata = { path, cause: error.code ?? error.message }
  switch (error.code) {
    case 'EACCES':
    case 'EPERM':
      return new BackupError(
        'HOST_DENIED',
        `connect to ${path}: permission denied; run as the user that started QEMU or open the socket to its group`,
        metadata,
      )
    case 'EAGAIN':
      return heldByAnother(path)
    default:
      return new BackupError(
        'HOST_UNREACHABLE',
        `connect to ${path}: ${error.code ?? error.message}; is QEMU running?`,
        metadata,
      )
  }
}

const heldByAnother = (path: string) =>
  new BackupError(
    'HOST_UNREACHABLE',
    `connect to ${path}: no greeting; another program holds the monitor, or QEMU hangs: end that program, give this host a monitor of its own, or see what QEMU waits for`,
    { path, cause: 'no greeting' },
  )

const silent = (path: string, what: string, deadlineMs: number) =>
  new BackupError(
    'HOST_UNREACHABLE',
    `${what} on ${path}: no answer in ${deadlineMs} ms; is QEMU or its storage hanging?`,
    { path, cause: 'no answer', what },
  )

const notQmp = 'it does not speak QMP'

/** A line as an object; null for everything else that a peer may send. */
function parseObject(line: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? { ...value } : null
  } catch {
    return null
  }
}

function eventOf({ event, data, timestamp }: Record<string, unknown>): QmpEvent {
  const { seconds, microseconds } = (timestamp ?? {}) as Record<string, unknown>
  return {
    event: event as string,
    data: (data ?? {}) as Record<string, unknown>,
    timestampUs: (Number(seconds) || 0) * 1_000_000 + (Number(microseconds) || 0),
  }
}
