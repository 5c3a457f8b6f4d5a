import { argumentInvalid } from '@blockferry/errors'

const pageSizeDefault = 100
const pageSizeMax = 1000

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
