import { createRequire } from 'node:module'
import type { Native } from './native.ts'

export type * from './native.ts'

// The same path from lib/ and from dist/.
const native: Native = createRequire(import.meta.url)('../out/blockferry.node')

export const {
  createRepository,
  openRepository,
  openWithoutKey,
  readIdentity,
  checkStored,
  listKeySlots,
  addKeySlot,
  removeKeySlot,
  cutReaders,
  lockImage,
  forgetCached,
  versions,
} = native
