import { chmodSync, existsSync, mkdirSync, unlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import { argumentInvalid, BackupError } from '@blockferry/errors'

/** Longest path of a unix socket on Linux. */
const socketPathSizeMax = 107

/**
 * Checks where a service may listen: `unix:/path` or a loopback address with a port.
 * Everything else is refused until there is mutual TLS.
 */
export function checkAddress(address: string): void {
  if (address.startsWith('unix:')) {
    const path = address.slice('unix:'.length)
    if (!path.startsWith('/')) throw argumentInvalid('address', address, 'give an absolute path')
    if (Buffer.byteLength(path) > socketPathSizeMax) {
      throw argumentInvalid(
        'address',
        address,
        `a unix socket path has at most ${socketPathSizeMax} bytes; use a shorter state folder`,
      )
    }
    return
  }
  if (!/^(127(\.\d{1,3}){3}|localhost|\[::1\]):\d{1,5}$/.test(address)) {
    throw new BackupError(
      'ADDRESS_REFUSED',
      `listen on ${address}: services listen on unix:/path or loopback (127.0.0.1:port) only, because the connection is not encrypted yet`,
      { address },
    )
  }
}

/** Makes the folder of a unix socket (0700) and removes a socket that nobody serves any more. */
export async function claimSocket(address: string): Promise<void> {
  if (!address.startsWith('unix:')) return
  const path = address.slice('unix:'.length)
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  if (!existsSync(path)) return
  if (await answers(path)) {
    throw new BackupError('ALREADY_EXISTS', `listen on ${address}: another process serves it`, {
      address,
    })
  }
  unlinkSync(path)
}

/** Only this user may connect. */
export function protectSocket(address: string): void {
  if (address.startsWith('unix:')) chmodSync(address.slice('unix:'.length), 0o600)
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}
