import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { sleep } from '@blockferry/core'
import type { Point } from '@blockferry/hypervisor'

const mebibyte = 1024 * 1024

/**
 * A reader as a mover that is stopped in mid-read: it asks for the first `mebibytes` of a disk, one
 * each, and takes no answer (NBD protocol: fixed newstyle handshake, simple read requests).
 */
export async function askAndNeverRead(
  point: Point,
  id: string,
  mebibytes: number,
): Promise<Socket> {
  const disk = point.disks.find((one) => one.id === id)
  if (disk?.address.kind !== 'nbd') throw new Error('not NBD')
  const uri = new URL(disk.address.uri)
  const name = uri.pathname.slice(1)
  const handshake = Buffer.alloc(20 + name.length)
  handshake.writeUInt32BE(0b11, 0) // fixed newstyle, no zeroes
  handshake.write('IHAVEOPT', 4)
  handshake.writeUInt32BE(1, 12) // NBD_OPT_EXPORT_NAME
  handshake.writeUInt32BE(name.length, 16)
  handshake.write(name, 20)
  const requests = Array.from({ length: mebibytes }, (_, index) => {
    const request = Buffer.alloc(28)
    request.writeUInt32BE(0x25609513, 0) // a request; flags 0, NBD_CMD_READ 0
    request.writeBigUInt64BE(BigInt(index), 8)
    request.writeBigUInt64BE(BigInt(index * mebibyte), 16)
    request.writeUInt32BE(mebibyte, 24)
    return request
  })
  const socket = connect(uri.searchParams.get('socket') ?? '').pause()
  socket.on('error', () => {})
  await once(socket, 'connect')
  socket.write(Buffer.concat([handshake, ...requests]))
  // QEMU has read the requests and fills the buffers.
  await sleep(500)
  return socket
}
