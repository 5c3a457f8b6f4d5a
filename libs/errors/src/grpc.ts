// The one place where a failure becomes a gRPC status and back. On the wire it is a
// google.rpc.Status in the trailer `grpc-status-details-bin` (google/rpc/status.proto and
// error_details.proto, field numbers below): ErrorInfo first, RetryInfo where waiting helps.
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire'
import { Metadata, type ServiceError, status } from '@grpc/grpc-js'
import { asBackupError, BackupError } from './backup_error.ts'
import { codeOf, isReason, type Reason } from './reason.ts'

const domain = 'blockferry.dev'
const detailsKey = 'grpc-status-details-bin'
const errorInfoUrl = 'type.googleapis.com/google.rpc.ErrorInfo'
const retryInfoUrl = 'type.googleapis.com/google.rpc.RetryInfo'
const retryDelaySeconds = 1

/** What grpc-js sends for a failed call. */
export interface StatusObject {
  code: status
  details: string
  metadata: Metadata
}

/**
 * The status of anything thrown. A BackupError keeps its text; what is not one leaves as
 * INTERNAL without text, and `report` is told, so that it is logged whole.
 */
export function statusOf(thrown: unknown, report: (thrown: unknown) => void): StatusObject {
  let failure = asBackupError(thrown)
  if (!failure) {
    report(thrown)
    failure = new BackupError('INTERNAL', 'internal error; the log of the service has the details')
  }
  const code = codeOf[failure.reason]
  const metadata = new Metadata()
  metadata.set(detailsKey, encodeStatus(code, failure))
  return { code, details: failure.message, metadata }
}

/** The failure a client received; a broken connection becomes SERVICE_UNREACHABLE. */
export function failureOf(thrown: unknown, service: string, address: string): BackupError {
  const known = asBackupError(thrown)
  if (known) return known
  const { code, details, metadata } = thrown as Partial<ServiceError>
  const [binary] = metadata?.get(detailsKey) ?? []
  const info = binary instanceof Buffer ? decodeErrorInfo(binary) : null
  if (info && isReason(info.reason)) {
    return new BackupError(info.reason, details ?? '', info.metadata)
  }
  const reason = reasonOfCode(code)
  const call = `call the ${service} service at ${address}`
  const text =
    reason === 'SERVICE_UNREACHABLE'
      ? `${call}: ${causeOf(details ?? '')}; is it running?`
      : reason === 'DEADLINE_EXCEEDED'
        ? `${call}: no answer within the caller's deadline; what was asked for may be done all the same; ask again, with the same request_id if the call has one`
        : `${call}: ${details ?? String(thrown)}`
  return new BackupError(reason, text, { service, address }, { cause: thrown })
}

/** `connect ENOENT /run/x.sock` out of what grpc-js says around it. */
const causeOf = (details: string): string =>
  details
    .replace(/^No connection established\. Last error: (Error: )?/, '')
    .replace(/\.? ?Resolution note:.*$/s, '')

function reasonOfCode(code: status | undefined): Reason {
  switch (code) {
    case status.CANCELLED:
      return 'CANCELLED'
    case status.DEADLINE_EXCEEDED:
      return 'DEADLINE_EXCEEDED'
    case status.INVALID_ARGUMENT:
      return 'ARGUMENT_INVALID'
    case status.UNAVAILABLE:
      return 'SERVICE_UNREACHABLE'
    default:
      return 'INTERNAL'
  }
}

/** google.rpc.Status { code = 1, message = 2, details = 3 (Any { type_url = 1, value = 2 }) } */
function encodeStatus(code: status, failure: BackupError): Buffer {
  const writer = new BinaryWriter()
  writer.uint32(8).int32(code)
  writer.uint32(18).string(failure.message)
  writeAny(writer, errorInfoUrl, encodeErrorInfo(failure))
  if (code === status.UNAVAILABLE || code === status.RESOURCE_EXHAUSTED) {
    const delay = new BinaryWriter().uint32(8).int64(retryDelaySeconds).finish()
    writeAny(writer, retryInfoUrl, new BinaryWriter().uint32(10).bytes(delay).finish())
  }
  return Buffer.from(writer.finish())
}

function writeAny(writer: BinaryWriter, url: string, value: Uint8Array): void {
  writer.uint32(26).fork()
  writer.uint32(10).string(url)
  writer.uint32(18).bytes(value)
  writer.join()
}

/** google.rpc.ErrorInfo { reason = 1, domain = 2, metadata = 3 (map<string, string>) } */
function encodeErrorInfo(failure: BackupError): Uint8Array {
  const writer = new BinaryWriter()
  writer.uint32(10).string(failure.reason)
  writer.uint32(18).string(domain)
  for (const [key, value] of Object.entries(failure.metadata)) {
    writer.uint32(26).fork()
    writer.uint32(10).string(key)
    writer.uint32(18).string(value)
    writer.join()
  }
  return writer.finish()
}

interface ErrorInfo {
  reason: string
  metadata: Record<string, string>
}

function decodeErrorInfo(bytes: Uint8Array): ErrorInfo | null {
  try {
    for (const any of fieldsOf(bytes).filter((field) => field.number === 3)) {
      const fields = fieldsOf(any.bytes)
      if (textOf(fields, 1) !== errorInfoUrl) continue
      const info = fieldsOf(fields.find((field) => field.number === 2)?.bytes ?? new Uint8Array())
      const entries = info
        .filter((field) => field.number === 3)
        .map((field) => fieldsOf(field.bytes))
        .map((entry) => [textOf(entry, 1), textOf(entry, 2)] as const)
      return { reason: textOf(info, 1), metadata: Object.fromEntries(entries) }
    }
  } catch {
    // A trailer that another implementation wrote badly says no more than the code does.
  }
  return null
}

interface Field {
  number: number
  bytes: Uint8Array
}

/** The length-delimited fields of a message; others are skipped. */
function fieldsOf(message: Uint8Array): Field[] {
  const reader = new BinaryReader(message)
  const fields: Field[] = []
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag()
    if (wireType === 2) fields.push({ number, bytes: reader.bytes() })
    else reader.skip(wireType)
  }
  return fields
}

const textOf = (fields: Field[], number: number): string =>
  Buffer.from(fields.find((field) => field.number === number)?.bytes ?? []).toString('utf8')
