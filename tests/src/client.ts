// A stranger's client: grpc-js, proto-loader and server reflection alone, nothing of ours
// but an address. What it learns it learns from the server.
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js'
import { loadFileDescriptorSetFromBuffer, type ServiceDefinition } from '@grpc/proto-loader'

const reflectionPath = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo'
const identity = (bytes: Buffer): Buffer => bytes

/** One length-delimited field: tag, length, bytes. */
function field(number: number, bytes: Buffer): Buffer {
  const head: number[] = [(number << 3) | 2]
  let rest = bytes.length
  while (rest > 127) {
    head.push((rest & 127) | 128)
    rest >>>= 7
  }
  return Buffer.concat([Buffer.from([...head, rest]), bytes])
}

/** The length-delimited fields of a message. */
function fieldsOf(message: Buffer): { number: number; bytes: Buffer }[] {
  const found: { number: number; bytes: Buffer }[] = []
  let at = 0
  const varint = (): number => {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = message[at++] ?? 0
      value += (byte & 127) * 2 ** shift
      if (byte < 128) return value
    }
  }
  while (at < message.length) {
    const tag = varint()
    if ((tag & 7) === 0) varint()
    else if ((tag & 7) === 2) {
      const size = varint()
      found.push({ number: Math.floor(tag / 8), bytes: message.subarray(at, at + size) })
      at += size
    } else throw new Error(`wire type ${tag & 7}`)
  }
  return found
}

/** Asks the server for the files that define a symbol, with all they import. */
function describe(client: Client, symbol: string): Promise<Buffer> {
  const call = client.makeBidiStreamRequest<Buffer, Buffer>(reflectionPath, identity, identity)
  return new Promise((resolve, reject) => {
    call.on('error', reject)
    call.on('data', (response: Buffer) => {
      const answer = fieldsOf(response).find(({ number }) => number === 4)
      if (!answer) return reject(new Error(`the server does not describe ${symbol}`))
      // FileDescriptorResponse.file_descriptor_proto = 1 is FileDescriptorSet.file = 1.
      resolve(Buffer.concat(fieldsOf(answer.bytes).map(({ bytes }) => field(1, bytes))))
      call.end()
    })
    // ServerReflectionRequest.file_containing_symbol = 4.
    call.write(field(4, Buffer.from(symbol)))
  })
}

/** A service that was learnt from its server. */
export class StrangersClient implements Disposable {
  #client: Client
  #methods: ServiceDefinition

  private constructor(client: Client, methods: ServiceDefinition) {
    this.#client = client
    this.#methods = methods
  }

  static async learn(address: string, service: string): Promise<StrangersClient> {
    const client = new Client(address, credentials.createInsecure())
    const files = await describe(client, service)
    const definition = loadFileDescriptorSetFromBuffer(files, { longs: Number, enums: String })
    return new StrangersClient(client, definition[service] as ServiceDefinition)
  }

  call(method: string, request: object): Promise<Record<string, unknown>> {
    const { path, requestSerialize, responseDeserialize } = this.#method(method)
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        new Metadata(),
        (error, response) => (error ? reject(error) : resolve(response as Record<string, unknown>)),
      )
    })
  }

  watch(method: string, request: object): AsyncIterable<Record<string, unknown>> {
    const { path, requestSerialize, responseDeserialize } = this.#method(method)
    return this.#client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
    ) as AsyncIterable<Record<string, unknown>>
  }

  [Symbol.dispose](): void {
    this.#client.close()
  }

  #method(name: string) {
    const method = this.#methods[name]
    if (!method) throw new Error(`the service has no ${name}`)
    return method
  }
}

export interface ErrorDetails {
  code: number
  message: string
  reason: string
  domain: string
  metadata: Record<string, string>
}

/** google.rpc.Status of the trailer with its ErrorInfo, decoded by field numbers. */
export function detailsOf(thrown: unknown): ErrorDetails {
  const error = thrown as ServiceError
  const [trailer] = error.metadata.get('grpc-status-details-bin')
  if (!(trailer instanceof Buffer)) throw new Error('no grpc-status-details-bin')
  const text = (fields: ReturnType<typeof fieldsOf>, number: number) =>
    fields.find((one) => one.number === number)?.bytes.toString() ?? ''
  const status = fieldsOf(trailer)
  const first = fieldsOf(status.find(({ number }) => number === 3)?.bytes ?? Buffer.alloc(0))
  if (text(first, 1) !== 'type.googleapis.com/google.rpc.ErrorInfo') {
    throw new Error(`the first detail is ${text(first, 1)}`)
  }
  const info = fieldsOf(first.find(({ number }) => number === 2)?.bytes ?? Buffer.alloc(0))
  const entries = info.filter(({ number }) => number === 3).map(({ bytes }) => fieldsOf(bytes))
  return {
    code: error.code,
    message: text(status, 2),
    reason: text(info, 1),
    domain: text(info, 2),
    metadata: Object.fromEntries(entries.map((entry) => [text(entry, 1), text(entry, 2)])),
  }
}
