import { describe, expect, it } from 'vitest'
import { errorFields } from './log.ts'

describe('errorFields', () => {
  it('keeps what explains a failure and drops what a library hung on it', () => {
    const cause = Object.assign(new Error('broke'), { code: '57P01', client: { password: 'x' } })
    const fields = errorFields(new Error('query', { cause }))
    expect(fields).toMatchObject({ message: 'query', cause: { message: 'broke', code: '57P01' } })
    expect(JSON.stringify(fields)).not.toContain('password')
  })
})
