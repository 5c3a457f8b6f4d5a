// Messages as JSON for programs: snake_case names with units, times in UTC (RFC 3339), enum values
// in lower case, sizes as exact integers, absent values as null.
import { backup, keySlot, msFromDuration, retention, schedule, snapshot } from '@blockferry/proto'

type EnumNames = Record<string, (value: never) => string>

const lowerCase = (text: string, prefix: string): string =>
  text.replace(prefix, '').toLowerCase().replace('unspecified', '')

const sharedEnums: EnumNames = {
  level: (value: backup.Level) => lowerCase(backup.levelToJSON(value), 'LEVEL_'),
  method: (value: backup.Method) => lowerCase(backup.methodToJSON(value), 'METHOD_'),
  consistency: (value: backup.Consistency) =>
    lowerCase(backup.consistencyToJSON(value), 'CONSISTENCY_'),
}

const vmEnums: EnumNames = {
  ...sharedEnums,
  state: (value: snapshot.VmState) => lowerCase(snapshot.vmStateToJSON(value), 'VM_STATE_'),
}

const runEnums: EnumNames = {
  ...sharedEnums,
  state: (value: schedule.Run_State) => lowerCase(schedule.run_StateToJSON(value), 'STATE_'),
  kind: (value: schedule.Run_Kind) => lowerCase(schedule.run_KindToJSON(value), 'KIND_'),
}

const keySlotEnums: EnumNames = {
  kind: (value: keySlot.KeySlot_Kind) => lowerCase(keySlot.keySlot_KindToJSON(value), 'KIND_'),
}

const decisionEnums: EnumNames = {
  verdict: (value: retention.RetentionDecision_Verdict) =>
    lowerCase(retention.retentionDecision_VerdictToJSON(value), 'VERDICT_'),
  kind: (value: retention.RetentionReason_Kind) =>
    lowerCase(retention.retentionReason_KindToJSON(value), 'KIND_'),
}

export const runJson = (run: schedule.Run): unknown => jsonOf(run, runEnums)
export const vmJson = (vm: snapshot.Vm): unknown => jsonOf(vm, vmEnums)
export const plainJson = (message: object): unknown => jsonOf(message, sharedEnums)

export const keySlotJson = (slot: keySlot.KeySlot): unknown => jsonOf(slot, keySlotEnums)

export const decisionJson = (decision: retention.RetentionDecision): unknown =>
  jsonOf(decision, decisionEnums)

export const stateName = (run: schedule.Run): string => enumText(runEnums, 'state', run.state)
export const kindName = (run: schedule.Run): string => enumText(runEnums, 'kind', run.kind)
export const vmStateName = (vm: snapshot.Vm): string => enumText(vmEnums, 'state', vm.state)
export const keySlotKindName = (slot: keySlot.KeySlot): string =>
  enumText(keySlotEnums, 'kind', slot.kind)
export const verdictName = (verdict: retention.RetentionDecision_Verdict): string =>
  enumText(decisionEnums, 'verdict', verdict)
/** As the documentation spells it: `KEEP_DAILY`. */
export const reasonName = (kind: retention.RetentionReason_Kind): string =>
  enumText(decisionEnums, 'kind', kind).toUpperCase()
export const levelName = (level: backup.Level): string => enumText(runEnums, 'level', level)
export const methodName = (method: backup.Method): string => enumText(runEnums, 'method', method)
export const consistencyName = (consistency: backup.Consistency): string =>
  enumText(runEnums, 'consistency', consistency)

const enumText = (names: EnumNames, field: string, value: number): string =>
  names[field]?.(value as never) ?? ''

function jsonOf(value: unknown, enums: EnumNames): unknown {
  if (value === undefined || value === null) return null
  if (value instanceof Date) return value.toISOString()
  if (Array.isArray(value)) return value.map((element) => jsonOf(element, enums))
  if (typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([key, field]) => fieldOf(key, field, enums)))
}

function fieldOf(key: string, field: unknown, enums: EnumNames): [string, unknown] {
  const name = key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
  if (key.endsWith('Duration')) {
    return [`${name}_ms`, field === undefined ? null : msFromDuration(field as never)]
  }
  const enumName = enums[key]
  if (enumName && typeof field === 'number') return [name, enumName(field as never)]
  // Keys of a map are data.
  if (key === 'metadata') return [name, field]
  return [name, jsonOf(field, enums)]
}

const rawJson = (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON

/** One line of JSON; integers beyond 2^53 keep every digit. */
export const jsonLine = (value: unknown): string =>
  JSON.stringify(value, (_, field) =>
    typeof field === 'bigint' ? rawJson(field.toString()) : field,
  )
