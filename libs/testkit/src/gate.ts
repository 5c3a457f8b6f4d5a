// A gate stands between two services of ours and passes every call on to the real one.
// It is the tests' place to look at a call, to hold one back, or to break something
// exactly before or after it. It is a wire with a hand on it, not a double.
import { newLog } from '@blockferry/core'
import {
  connect,
  type Definition,
  type Handlers,
  type RunningService,
  serve,
} from '@blockferry/rpc'

export interface GateHooks {
  /** Called with each request before it is passed on; may wait. */
  before?: (method: string, request: unknown) => Promise<void> | void
  /** Called with each answer before it is passed back; may wait. */
  after?: (method: string, request: unknown, response: unknown) => Promise<void> | void
}

export interface GateOptions<S> {
  /** Where the gate listens. */
  address: string
  /** Where the real service listens. */
  target: string
  service: string
  definition: Definition<S>
  hooks: GateHooks
}

type AnyUnary = (request: unknown, options: object) => Promise<unknown>
type AnyStream = (request: unknown, options: object) => AsyncIterable<unknown>

/** No limit of the gate's own: the caller's deadline aborts the signal. */
const passedOnDeadlineMs = 24 * 3600 * 1000

export async function openGate<S>(options: GateOptions<S>): Promise<RunningService> {
  const { address, target, service, definition, hooks } = options
  const client = connect<S>(service, definition, target)
  const methods = client as unknown as Record<string, AnyUnary & AnyStream>
  const handlers: Record<string, unknown> = {}
  for (const [name, method] of Object.entries(definition) as [
    string,
    { responseStream: boolean },
  ][]) {
    const passOn = methods[name] as AnyUnary & AnyStream
    handlers[name] = method.responseStream
      ? (request: unknown, call: { signal: AbortSignal }) =>
          passOn(request, { signal: call.signal })
      : async (request: unknown, call: { signal: AbortSignal }) => {
          await hooks.before?.(name, request)
          const response = await passOn(request, {
            signal: call.signal,
            deadlineMs: passedOnDeadlineMs,
          })
          await hooks.after?.(name, request, response)
          return response
        }
  }
  const gate = await serve<S>({
    address,
    name: `blockferry.${service}.v1.${service[0]?.toUpperCase()}${service.slice(1)}Service`,
    definition,
    handlers: handlers as Handlers<S>,
    log: newLog('gate', 'silent'),
  })
  return {
    address: gate.address,
    async [Symbol.asyncDispose]() {
      await gate[Symbol.asyncDispose]()
      client[Symbol.dispose]()
    },
  }
}
