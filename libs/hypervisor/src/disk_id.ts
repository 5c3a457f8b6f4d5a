/** Ids that every repository can keep; docs/repository-format.md sets the bounds. */
export const diskIdRule = '1 to 255 bytes without control characters'

const sizeBytesMax = 255

export function isDiskId(id: string): boolean {
  const size = Buffer.byteLength(id)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  return size >= 1 && size <= sizeBytesMax && !/[\0-\x1f\x7f]/.test(id)
}
