import { argumentInvalid } from '@blockferry/errors'

const pageSizeDefault = 100
const pageSizeMax = 1000
/** A message takes 8 MiB; the rest is for an element that alone is large. */
const pageBytesMax = 4 * 1024 * 1024

export interface Page {
  size: number
  /** Position of the page's first element in the listing. */
  offset: number
}

/** The page a list request asks for; the token is the offset as text. Errors: ARGUMENT_INVALID. */
export function pageOf(request: { pageSize: number; pageToken: string }): Page {
  const { pageSize, pageToken } = request
  if (pageSize < 0) throw argumentInvalid('page_size', String(pageSize), 'give 0 or more')
  if (!/^\d{0,12}$/.test(pageToken)) {
    throw argumentInvalid('page_token', pageToken, 'give the next_page_token of the page before')
  }
  return { size: Math.min(pageSize || pageSizeDefault, pageSizeMax), offset: Number(pageToken) }
}

/** How a generated message type says the size of a message. */
interface Encoder<M> {
  encode(message: M): { finish(): Uint8Array }
}

/**
 * The elements of a page and the token of the next. `found` begins with the page's first element
 * and goes beyond its last when there are more; a page whose elements are large ends earlier.
 */
export function cutPage<M>(
  found: readonly M[],
  { size, offset }: Page,
  type: Encoder<M>,
): { items: M[]; nextPageToken: string } {
  const items: M[] = []
  let bytes = 0
  for (const message of found.slice(0, size)) {
    bytes += type.encode(message).finish().length
    if (bytes > pageBytesMax && items.length > 0) break
    items.push(message)
  }
  const more = items.length < found.length
  return { items, nextPageToken: more ? String(offset + items.length) : '' }
}
