import { Metadata, status } from '@grpc/grpc-js'
import { describe, expect, it } from 'vitest'
import { failureOf } from './grpc.ts'

const failureFrom = (code: status, details: string) =>
  failureOf({ code, details, metadata: new Metadata() }, 'schedule', 'unix:/run/x.sock')

describe('a failure that no service described', () => {
  it('says after a deadline that the work may go on, and how to ask again', () => {
    const { reason, message } = failureFrom(status.DEADLINE_EXCEEDED, 'Deadline exceeded after 1s')
    expect(reason).toBe('DEADLINE_EXCEEDED')
    expect(message).toMatch(/schedule service at unix:\/run\/x\.sock: .*same request_id/)
  })

  it('asks after a refused connection whether the service runs', () => {
    const { reason, message } = failureFrom(status.UNAVAILABLE, 'connect ENOENT /run/x.sock')
    expect(reason).toBe('SERVICE_UNREACHABLE')
    expect(message).toContain('connect ENOENT /run/x.sock; is it running?')
  })
})
