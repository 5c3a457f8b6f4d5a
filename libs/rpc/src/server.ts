import { after, type Logger } from '@blockferry/core'
import { BackupError, statusOf } from '@blockferry/errors'
import { descriptorSet } from '@blockferry/proto'
import {
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  type UntypedHandleCall,
} from '@grpc/grpc-js'
import { checkAddress, claimSocket, protectSocket } from './address.ts'
import type { Call, Definition, Handlers } from './service_types.ts'

/** Longest time open calls get to end when a service stops. */
const stopGraceMs = 5_000
/** Larger than any message of ours; bulk data does not travel in messages. */
const messageSizeMax = 8 * 1024 * 1024

export interface RunningService extends AsyncDisposable {
  /** Where it listens; with port 0 the port that was drawn. */
  address: string
}

export interface ServeOptions<S> {
  address: string
  /** Full proto name, for health: `blockferry.schedule.v1.ScheduleService`. */
  name: string
  definition: Definition<S>
  handlers: Handlers<S>
  log: Logger
}

/** Serves one gRPC service with health and reflection until it is disposed of. */
export async function serve<S>(options: ServeOptions<S>): Promise<RunningService> {
  const { address, name, definition, handlers, log } = options
  checkAddress(address)
  await claimSocket(address)
  const server = new Server({
    'grpc.max_receive_message_length': messageSizeMax,
    'grpc.max_send_message_length': messageSizeMax,
  })
  // Watches would hold a stop back for its whole grace time; they are safe to call again.
  const openStreams = new Set<() => void>()
  const implementation: Record<string, UntypedHandleCall> = {}
  for (const [method, { responseStream }] of methodsOf(definition)) {
    const handler = handlers[method as keyof Handlers<S>] as unknown as AnyHandler
    implementation[method] = responseStream
      ? streaming(handler as StreamHandler, method, log, openStreams)
      : unary(handler as UnaryHandler, method, log)
  }
  server.addService(definition as never, implementation)
  await addReflection(server)
  const { HealthImplementation } = await import('grpc-health-check')
  const health = new HealthImplementation({ '': 'SERVING', [name]: 'SERVING' })
  health.addToServer(server)
  const port = await bind(server, address)
  protectSocket(address)
  const bound = address.replace(/:0$/, `:${port}`)
  log.info({ address: bound }, 'listening')
  return {
    address: bound,
    async [Symbol.asyncDispose]() {
      health.setStatus(name, 'NOT_SERVING')
      health.setStatus('', 'NOT_SERVING')
      await stop(server, openStreams)
      log.info({ address: bound }, 'stopped')
    },
  }
}

// Loaded here, and health with it: they cost a client that only calls a fifth of its start.
async function addReflection(server: Server): Promise<void> {
  const { loadFileDescriptorSetFromBuffer } = await import('@grpc/proto-loader')
  const { ReflectionService } = await import('@grpc/reflection')
  const definitions = loadFileDescriptorSetFromBuffer(descriptorSet())
  // Every definition carries all files, and reflection decodes those of each one it is given: of all
  // of them, a service would start with 30 MiB of garbage.
  const one = Object.fromEntries(Object.entries(definitions).slice(0, 1))
  new ReflectionService(one).addToServer(server)
}

function bind(server: Server, address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) => {
      if (!error) return resolve(port)
      reject(
        new BackupError('ALREADY_EXISTS', `listen on ${address}: ${error.message}`, { address }),
      )
    })
  })
}

/** Lets open unary calls end; streams and late calls are cut after the grace time. */
function stop(server: Server, openStreams: Set<() => void>): Promise<void> {
  return new Promise((resolve) => {
    const giveUp = after(stopGraceMs, () => server.forceShutdown())
    server.tryShutdown(() => {
      giveUp()
      resolve()
    })
    for (const end of openStreams) end()
  })
}

type UnaryHandler = (request: unknown, call: Call) => Promise<unknown>
type StreamHandler = (request: unknown, call: Call) => AsyncIterable<unknown>
type AnyHandler = UnaryHandler | StreamHandler

const methodsOf = (definition: object): [string, { responseStream: boolean }][] =>
  Object.entries(definition)

function unary(handler: UnaryHandler, method: string, log: Logger) {
  return (call: ServerUnaryCall<unknown, unknown>, answer: sendUnaryData<unknown>): void => {
    const abort = new AbortController()
    call.on('cancelled', () => abort.abort(cancelled(method)))
    handler(call.request, { signal: abort.signal }).then(
      (response) => answer(null, response),
      (thrown) => answer(statusOf(thrown, (error) => log.error({ err: error, method }, 'defect'))),
    )
  }
}

function streaming(
  handler: StreamHandler,
  method: string,
  log: Logger,
  openStreams: Set<() => void>,
) {
  return async (call: ServerWritableStream<unknown, unknown>): Promise<void> => {
    const abort = new AbortController()
    const end = () => abort.abort(cancelled(method))
    call.on('cancelled', end)
    openStreams.add(end)
    try {
      for await (const response of handler(call.request, { signal: abort.signal })) {
        if (!call.write(response)) await drained(call, abort.signal)
      }
      call.end()
    } catch (thrown) {
      call.emit(
        'error',
        statusOf(thrown, (error) => log.error({ err: error, method }, 'defect')),
      )
    } finally {
      openStreams.delete(end)
    }
  }
}

const cancelled = (method: string): BackupError =>
  new BackupError('CANCELLED', `${method}: the caller went away`)

/** A caller that left drains nothing any more. */
async function drained(
  call: ServerWritableStream<unknown, unknown>,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted()
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const leave = () => reject(signal.reason)
  call.once('drain', resolve)
  signal.addEventListener('abort', leave, { once: true })
  try {
    await promise
  } finally {
    call.off('drain', resolve)
    signal.removeEventListener('abort', leave)
  }
}
