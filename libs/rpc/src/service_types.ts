import type { handleServerStreamingCall, handleUnaryCall, MethodDefinition } from '@grpc/grpc-js'

/** What a handler may ask about its call. */
export interface Call {
  /** Aborted when the caller cancels, goes away or its deadline passes. */
  signal: AbortSignal
}

/** Keys that a generated server interface names itself, without its index signature. */
type MethodsOf<Server> = keyof { [K in keyof Server as string extends K ? never : K]: Server[K] }

/** A generated `…Server` interface as plain functions: promises and async iterables. */
export type Handlers<Server> = {
  [K in MethodsOf<Server>]: Server[K] extends handleUnaryCall<infer Request, infer Response>
    ? (request: Request, call: Call) => Promise<Response>
    : Server[K] extends handleServerStreamingCall<infer Request, infer Response>
      ? (request: Request, call: Call) => AsyncIterable<Response>
      : never
}

export interface CallOptions {
  signal?: AbortSignal
  /** Milliseconds until DEADLINE_EXCEEDED; unary calls have 30 s unless told, streams have none. */
  deadlineMs?: number
}

/** The same interface as a client sees it. */
export type Methods<Server> = {
  [K in MethodsOf<Server>]: Server[K] extends handleUnaryCall<infer Request, infer Response>
    ? (request: Request, options?: CallOptions) => Promise<Response>
    : Server[K] extends handleServerStreamingCall<infer Request, infer Response>
      ? (request: Request, options?: CallOptions) => AsyncIterable<Response>
      : never
}

/** A generated `…Service` constant; `Server` ties it to its handlers. */
export type Definition<Server> = {
  // biome-ignore lint/suspicious/noExplicitAny: the messages differ per method
  [K in MethodsOf<Server>]: MethodDefinition<any, any>
}
