// What QEMU's programs may take when they read an image that somebody else made: QEMU allocates
// tables by what a header claims.

/** Private memory. An idle daemon has 26 MiB, each open qcow2 caches 32 MiB at most. */
const memoryBytes = 2 * 2 ** 30
/** Reserved addresses; threads reserve far more than they use. */
const addressSpaceBytes = 8 * 2 ** 30
/** 2 TiB in extents of 2 GiB are 1,024 files, each opened twice. */
const openFilesMax = 8_192

/** Parameters for `prlimit`, to be followed by the program. `cpuMs` bounds work that must end. */
export const foreignLimits = (cpuMs: number | null = null): string[] => [
  `--data=${memoryBytes}`,
  `--as=${addressSpaceBytes}`,
  `--nofile=${openFilesMax}`,
  '--core=0',
  ...(cpuMs === null ? [] : [`--cpu=${Math.ceil(cpuMs / 1000)}`]),
]
