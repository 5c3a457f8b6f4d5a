import { wallMs } from '@blockferry/core'
import { failureOf } from '@blockferry/errors'
import { Client, credentials, type MethodDefinition } from '@grpc/grpc-js'
import { checkAddress } from './address.ts'
import type { CallOptions, Definition, Methods } from './service_types.ts'

const unaryDeadlineMs = 30_000
const messageSizeMax = 8 * 1024 * 1024

export type RpcClient<S> = Methods<S> & Disposable

/**
 * A client with one function per method: promises for unary calls, async iterables for
 * streams. Failures are BackupError; nothing is retried.
 */
export function connect<S>(
  service: string,
  definition: Definition<S>,
  address: string,
): RpcClient<S> {
  checkAddress(address)
  const client = new Client(address, credentials.createInsecure(), {
    'grpc.max_receive_message_length': messageSizeMax,
    'grpc.max_send_message_length': messageSizeMax,
    // A service that was just restarted is found again at once, not after a backoff of minutes.
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 1_000,
  })
  const failure = (thrown: unknown) => failureOf(thrown, service, address)
  const methods: Record<string | symbol, unknown> = { [Symbol.dispose]: () => client.close() }
  for (const [name, method] of Object.entries(definition) as [string, AnyMethod][]) {
    methods[name] = method.responseStream
      ? (request: unknown, options?: CallOptions) =>
          watch(client, method, request, options, failure)
      : (request: unknown, options?: CallOptions) => ask(client, method, request, options, failure)
  }
  return methods as RpcClient<S>
}

type AnyMethod = MethodDefinition<unknown, unknown>
type Failure = (thrown: unknown) => Error

function ask(
  client: Client,
  method: AnyMethod,
  request: unknown,
  options: CallOptions = {},
  failure: Failure,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    if (options.signal?.aborted) return reject(options.signal.reason)
    const { path, requestSerialize, responseDeserialize } = method
    const deadline = wallMs() + (options.deadlineMs ?? unaryDeadlineMs)
    const cancel = () => call.cancel()
    const call = client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      { deadline },
      (error, response) => {
        options.signal?.removeEventListener('abort', cancel)
        if (error) reject(failure(error))
        else resolve(response)
      },
    )
    options.signal?.addEventListener('abort', cancel, { once: true })
  })
}

async function* watch(
  client: Client,
  method: AnyMethod,
  request: unknown,
  options: CallOptions = {},
  failure: Failure,
): AsyncGenerator<unknown> {
  const { path, requestSerialize, responseDeserialize } = method
  const deadline =
    options.deadlineMs === undefined ? {} : { deadline: wallMs() + options.deadlineMs }
  const call = client.makeServerStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    request,
    deadline,
  )
  const cancel = () => call.cancel()
  options.signal?.addEventListener('abort', cancel, { once: true })
  try {
    for await (const response of call) yield response
  } catch (thrown) {
    throw failure(thrown)
  } finally {
    options.signal?.removeEventListener('abort', cancel)
    call.cancel()
  }
}
