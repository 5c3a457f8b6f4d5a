// Values of options, checked while the command line is read.

import { backup, durationFromMs, move } from '@blockferry/proto'
import { InvalidArgumentError } from 'commander'
import { durationMs } from './time_text.ts'

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

export function formatArgument(text: string): move.ImageFormat {
  if (text === 'raw') return move.ImageFormat.RAW
  if (text === 'qcow2') return move.ImageFormat.QCOW2
  throw new InvalidArgumentError('Give raw or qcow2.')
}

const repeatMsMin = 60_000

export function repeatArgument(text: string): ReturnType<typeof durationFromMs> {
  const ms = durationMs(text)
  if (ms === null || ms < repeatMsMin) {
    throw new InvalidArgumentError('Give a time of at least 1m, for example 30m, 12h or 1d.')
  }
  return durationFromMs(ms)
}
