import { readFileSync } from 'node:fs'

/** Every proto file of Blockferry as a serialized FileDescriptorSet, for server reflection. */
export const descriptorSet = (): Buffer =>
  readFileSync(new URL('../descriptors.binpb', import.meta.url))
