import { randomBytes } from 'node:crypto'

/** `size` random bytes as lower-case hex. */
export const randomHex = (size: number): string => randomBytes(size).toString('hex')

/** Id of a point in time: 12 hex digits, short enough for QEMU's 31 characters of a node name. */
export const newPointId = (): string => randomHex(6)

/** Id of a run and of the backup it makes: sorts by wall time, `20260131-235959-4f2a9c`. */
export function newRunId(wallTimeMs: number): string {
  const stamp = new Date(wallTimeMs).toISOString().slice(0, 19).replaceAll(/[-:]/g, '')
  return `${stamp.replace('T', '-')}-${randomHex(3)}`
}
