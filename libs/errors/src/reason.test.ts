import { readFileSync } from 'node:fs'
import { status } from '@grpc/grpc-js'
import { describe, expect, it } from 'vitest'
import { codeOf, decisions } from './reason.ts'

const proto = readFileSync(
  new URL('../../../proto/blockferry/error/v1/error.proto', import.meta.url),
  'utf8',
).replaceAll(/\n +\/\/ /g, ' ')

describe('the vocabulary of failures', () => {
  it('has the same reasons and codes as the proto file', () => {
    const documented = new Map<string, string>()
    for (const [, code, name] of proto.matchAll(/Code: (\w+)\.\n +REASON_(\w+) = \d+;/g)) {
      documented.set(name as string, code as string)
    }
    const coded = Object.entries(codeOf).map(([name, code]) => [name, status[code]] as const)
    expect(Object.fromEntries(documented)).toEqual(Object.fromEntries(coded))
  })

  it('has the same decisions as the proto file', () => {
    const documented = [...proto.matchAll(/\n {2}DECISION_(\w+) = [1-9]\d*;/g)].map(([, n]) => n)
    expect([...decisions]).toEqual(documented)
  })
})
