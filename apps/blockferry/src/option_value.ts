// Values of options, checked while the command line is read.

import { backup, durationFromMs, imageFormatNames, imageFormatOf, move } from '@blockferry/proto'
import { InvalidArgumentError } from 'commander'
import { durationMs } from './time_text.ts'

const zstdLevelDefault = 3

export function countArgument(text: string): string {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('Give a number from 1.')
  return text
}

export function levelArgument(text: string): backup.Level {
  switch (text) {
    case 'full':
      return backup.Level.FULL
    case 'incremental':
      return backup.Level.INCREMENTAL
    case 'differential':
      return backup.Level.DIFFERENTIAL
    default:
      throw new InvalidArgumentError('Give full, incremental or differential.')
  }
}

export function compressionArgument(text: string): move.Compression {
  const { LZ4, ZSTD, STORED } = move.Compression_Codec
  if (text === 'lz4') return { codec: LZ4, level: 0 }
  if (text === 'none') return { codec: STORED, level: 0 }
  const level = /^zstd(?::(1?[1-9]|10))?$/.exec(text)
  if (level) return { codec: ZSTD, level: Number(level[1] ?? zstdLevelDefault) }
  throw new InvalidArgumentError('Give lz4, zstd, zstd:1 to zstd:19, or none.')
}

export const compressionHelp = 'lz4 (default), zstd, zstd:1 (fast) to zstd:19 (small), or none'

export function compressionText({ codec, level }: move.Compression): string {
  const { ZSTD, STORED } = move.Compression_Codec
  if (codec === ZSTD) return `zstd:${level}`
  return codec === STORED ? 'none' : 'lz4'
}

export function formatArgument(text: string): move.ImageFormat {
  const format = imageFormatOf(text)
  if (format !== null) return format
  throw new InvalidArgumentError(`Give one of ${imageFormatNames.join(', ')}.`)
}

export function undoArgument(text: string): ReturnType<typeof durationFromMs> {
  const ms = text === '0' ? 0 : durationMs(text)
  if (ms === null) throw new InvalidArgumentError('Give a time, for example 7d, 12h or 0.')
  return durationFromMs(ms)
}

const repeatMsMin = 60_000

export function repeatArgument(text: string): ReturnType<typeof durationFromMs> {
  const ms = durationMs(text)
  if (ms === null || ms < repeatMsMin) {
    throw new InvalidArgumentError('Give a time of at least 1m, for example 30m, 12h or 1d.')
  }
  return durationFromMs(ms)
}

export function lockArgument(text: string): ReturnType<typeof durationFromMs> {
  const ms = text === '0' ? 0 : durationMs(text)
  if (ms === null) throw new InvalidArgumentError('Give a time, for example 30d, or 0 for no lock.')
  return durationFromMs(ms)
}

const sizeUnits = ['', 'K', 'M', 'G', 'T']

/** `50M` is 50 MiB. */
export function rateArgument(text: string): bigint {
  const [, digits, unit] = /^(\d{1,7})([KMGT]?)(?:i?B)?$/i.exec(text) ?? []
  if (digits === undefined || unit === undefined) {
    throw new InvalidArgumentError('Give bytes, for example 50M, or 0 for no limit.')
  }
  return BigInt(digits) << BigInt(10 * sizeUnits.indexOf(unit.toUpperCase()))
}
