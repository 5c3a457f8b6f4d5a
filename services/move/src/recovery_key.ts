// A key as text that people write down: `bfkey-`, then 56 letters of Crockford's base 32 in groups of
// four, the 256 bits of the key, four of zeroes, and 20 of a checksum, the first of its SHA-256.
// Source of the alphabet: https://www.crockford.com/base32.html
import { createHash } from 'node:crypto'

const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const prefix = 'bfkey-'
export const keySizeBytes = 32
const checksumBits = 20n
const letterCount = 56

/** REQUIRES: `key` has 32 bytes. */
export function recoveryKeyText(key: Uint8Array): string {
  let rest = (numberOf(key) << 24n) | checksumOf(key)
  let letters = ''
  for (let index = 0; index < letterCount; index++) {
    letters = alphabet.charAt(Number(rest & 31n)) + letters
    rest >>= 5n
  }
  return prefix + letters.replace(/(....)(?=.)/g, '$1-')
}

/** The key, `null` for a text that does not look like one, and `mistyped` for one that was. */
export function parseRecoveryKey(text: string): Uint8Array | null | 'mistyped' {
  if (!text.toLowerCase().startsWith(prefix)) return null
  const letters = text
    .slice(prefix.length)
    .toUpperCase()
    .replaceAll(/[-\s]/g, '')
    .replaceAll('O', '0')
    .replaceAll(/[IL]/g, '1')
  if (letters.length !== letterCount) return 'mistyped'
  let number = 0n
  for (const letter of letters) {
    const digit = alphabet.indexOf(letter)
    if (digit < 0) return 'mistyped'
    number = (number << 5n) | BigInt(digit)
  }
  const key = Buffer.from((number >> 24n).toString(16).padStart(2 * keySizeBytes, '0'), 'hex')
  return (number & 0xff_ffffn) === checksumOf(key) ? key : 'mistyped'
}

const numberOf = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).toString('hex')}`)

const checksumOf = (key: Uint8Array): bigint =>
  BigInt(createHash('sha256').update(key).digest().readUInt32BE(0)) >> (32n - checksumBits)
