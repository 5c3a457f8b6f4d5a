import type { Duration } from './gen/google/protobuf/duration.ts'

/** google.protobuf.Duration of `ms` milliseconds (fractions down to a nanosecond are kept). */
export function durationFromMs(ms: number): Duration {
  const seconds = Math.trunc(ms / 1000)
  return { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) }
}

/** Milliseconds of a duration; 0 when it is unset. */
export const msFromDuration = (duration: Duration | undefined): number =>
  duration ? Number(duration.seconds) * 1000 + duration.nanos / 1e6 : 0
