// Reads the first bytes of an NBD export. A copy-before-write filter that could not
// write to its fleece store refuses every read from then on, and nothing else in
// QEMU tells; reading through the monitor could hang QEMU itself on a dead store.
import type { Socket } from 'node:net'
import { within } from '@blockferry/core'
import { openUnixSocket } from '../qmp.ts'

const probeBytes = 512
const noZeroes = 2
const optionExportName = 1
const readCommand = 0

/** Null when the read succeeds, else what went wrong. */
export async function probeExport(
  socketPath: string,
  exportName: string,
  deadlineMs: number,
): Promise<string | null> {
  let socket: Socket | null = null
  try {
    socket = await openUnixSocket(socketPath, deadlineMs)
    const reading = readFirstBytes(socket, exportName)
    return await within(deadlineMs, reading, () => new Error(`no answer in ${deadlineMs} ms`))
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : String(thrown)
  } finally {
    socket?.destroy()
  }
}

async function readFirstBytes(socket: Socket, exportName: string): Promise<string | null> {
  const input = new ByteReader(socket)
  await input.take(16)
  const flags = (await input.take(2)).readUInt16BE()
  const name = Buffer.from(exportName)
  const option = Buffer.alloc(4 + 16)
  option.writeUInt32BE(flags & 3, 0)
  option.write('IHAVEOPT', 4)
  option.writeUInt32BE(optionExportName, 12)
  option.writeUInt32BE(name.length, 16)
  socket.write(Buffer.concat([option, name]))
  const sizeBytes = (await input.take(8)).readBigUInt64BE()
  await input.take(2 + (flags & noZeroes ? 0 : 124))
  if (sizeBytes < BigInt(probeBytes)) return null
  const request = Buffer.alloc(28)
  request.writeUInt32BE(0x25609513, 0)
  request.writeUInt16BE(readCommand, 6)
  request.writeUInt32BE(probeBytes, 24)
  socket.write(request)
  const reply = await input.take(16)
  const error = reply.readUInt32BE(4)
  return error === 0 ? null : `reading fails with error ${error}`
}

class ByteReader {
  #bytes = Buffer.alloc(0)
  #wanted: { count: number; resolve(bytes: Buffer): void; reject(error: Error): void } | null = null
  #ended = false

  constructor(socket: Socket) {
    socket.on('data', (bytes: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, bytes])
      this.#serve()
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#ended = true
      this.#serve()
    })
  }

  take(count: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#wanted = { count, resolve, reject }
      this.#serve()
    })
  }

  #serve(): void {
    if (!this.#wanted) return
    const { count, resolve, reject } = this.#wanted
    if (this.#bytes.length >= count) {
      this.#wanted = null
      const taken = this.#bytes.subarray(0, count)
      this.#bytes = this.#bytes.subarray(count)
      resolve(taken)
    } else if (this.#ended) {
      reject(new Error('the export closed the connection'))
    }
  }
}
