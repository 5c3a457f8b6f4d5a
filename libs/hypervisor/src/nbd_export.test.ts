import { expect, it } from 'vitest'
import { cutOffReaders } from './nbd_export.ts'

it('answers why readers could not be cut off, so that the work around it goes on', async () => {
  expect(await cutOffReaders('/tmp/blockferry-nobody-listens')).toBeNull()
  const tooLong = '/'.padEnd(200, 'x')
  expect(await cutOffReaders(tooLong)).toMatchObject({ reason: 'ARGUMENT_INVALID' })
})
