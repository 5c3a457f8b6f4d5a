import { badInput } from './bad_input.ts'
import { differential } from './differential.ts'
import { formats } from './formats.ts'
import { freeze } from './freeze.ts'
import { instants, kills } from './kills.ts'
import { oddChanges, oddSizes } from './odd_disks.ts'
import { qemuKilled } from './qemu_killed.ts'
import { rebuild } from './rebuild.ts'
import type { Scenario } from './row.ts'
import { stranger } from './stranger.ts'
import { tracking } from './tracking.ts'

/** In the order of their cost. */
export const scenarios: Scenario[] = [
  stranger,
  tracking,
  badInput,
  oddSizes,
  oddChanges,
  formats,
  rebuild,
  differential,
  qemuKilled,
  instants,
  freeze,
  kills,
]
