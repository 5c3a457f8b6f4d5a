import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { parseRecoveryKey, recoveryKeyText } from './recovery_key.ts'

const counting = Buffer.from(Array.from({ length: 32 }, (_, index) => index))
const text = 'bfkey-000G-40R4-0M30-E209-185G-R38E-1W81-24GK-2GAH-C5RR-34D1-P70X-3RFG-CC6W'

describe('a recovery key', () => {
  it('is written as the rescue script reads it', () => {
    expect(recoveryKeyText(counting)).toBe(text)
  })

  it('comes back as it was, however people write it', () => {
    for (let round = 0; round < 100; round++) {
      const key = randomBytes(32)
      expect(parseRecoveryKey(recoveryKeyText(key))).toEqual(key)
    }
    for (const written of [
      text.toLowerCase(),
      text.replaceAll('-', '').replace('bfkey', 'bfkey-'),
      text.replaceAll('0', 'O').replaceAll('1', 'l'),
      `${text} `,
    ]) {
      expect(parseRecoveryKey(written)).toEqual(counting)
    }
  })

  it('shows a letter that was mistyped, left out or swapped', () => {
    const letters = text.slice('bfkey-'.length)
    for (let at = 0; at < letters.length; at++) {
      if (letters[at] === '-') continue
      const other = letters[at] === '7' ? '8' : '7'
      const changed = letters.slice(0, at) + other + letters.slice(at + 1)
      expect(parseRecoveryKey(`bfkey-${changed}`), changed).toBe('mistyped')
      expect(parseRecoveryKey(`bfkey-${letters.slice(0, at)}${letters.slice(at + 1)}`)).toBe(
        'mistyped',
      )
    }
    expect(parseRecoveryKey(text.replace('40R4', '4R04'))).toBe('mistyped')
    expect(parseRecoveryKey(text.replace('40R4', '4UR4'))).toBe('mistyped')
  })

  it('is no passphrase, and a passphrase is none', () => {
    for (const passphrase of ['', 'correct horse', 'bfkeys are nice', letter(56)]) {
      expect(parseRecoveryKey(passphrase)).toBeNull()
    }
  })
})

const letter = (count: number): string => '0'.repeat(count)
