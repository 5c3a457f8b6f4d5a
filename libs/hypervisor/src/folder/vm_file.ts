// The small YAML that describes a VM of a folder host: `vm.yaml` in the VM's folder,
// or `<name>.yaml` in the host's folder. Everything in it is optional but `disks` in the latter:
//
//   id: web-1                  # identity; else the folder's or the file's name
//   name: Web server           # for people
//   disks:
//     - file: root.qcow2       # relative to the YAML
//       id: root               # else the file's name
//       format: qcow2          # checked; else by the file's first bytes
//   stop: virsh shutdown --mode agent web-1 && …   # returns when the machine is off
//   start: [virsh, start, web-1]
//   stop_timeout_seconds: 120
//   start_timeout_seconds: 60
//
// A hook is a command line for /bin/sh, or a list that is run as it is. `stop` has to
// shut the machine down cleanly: the disks are read as it leaves them.
import { parse } from 'yaml'

export interface Hook {
  command: string[]
  timeoutMs: number
}

export interface VmFileDisk {
  file: string
  id: string | null
  format: string | null
}

export interface VmFile {
  id: string | null
  name: string | null
  disks: VmFileDisk[] | null
  stop: Hook | null
  start: Hook | null
}

/** What is wrong with the file, in words for the user. */
export class VmFileInvalid extends Error {}

const stopSecondsDefault = 120
const startSecondsDefault = 60
const timeoutSecondsMax = 3600
const textMax = 1024

const vmKeys = [
  'id',
  'name',
  'disks',
  'stop',
  'start',
  'stop_timeout_seconds',
  'start_timeout_seconds',
]
const diskKeys = ['file', 'id', 'format']

/** Errors: VmFileInvalid. */
export function parseVmFile(text: string): VmFile {
  let document: unknown
  try {
    document = parse(text, { maxAliasCount: 10 }) ?? {}
  } catch (thrown) {
    throw new VmFileInvalid(thrown instanceof Error ? firstLine(thrown.message) : 'not YAML')
  }
  const vm = mapping(document, 'the file', vmKeys)
  return {
    id: textOf(vm.id, 'id'),
    name: textOf(vm.name, 'name'),
    disks: vm.disks === undefined ? null : list(vm.disks, 'disks').map(parseDisk),
    stop: hook(vm.stop, 'stop', vm.stop_timeout_seconds, stopSecondsDefault),
    start: hook(vm.start, 'start', vm.start_timeout_seconds, startSecondsDefault),
  }
}

function parseDisk(value: unknown): VmFileDisk {
  const disk = mapping(value, 'a disk', diskKeys)
  const file = textOf(disk.file, 'file')
  if (!file) throw new VmFileInvalid('a disk without "file"')
  return { file, id: textOf(disk.id, 'id'), format: textOf(disk.format, 'format') }
}

function hook(value: unknown, key: string, seconds: unknown, secondsDefault: number): Hook | null {
  const timeout = seconds ?? secondsDefault
  if (typeof timeout !== 'number' || !(timeout > 0) || timeout > timeoutSecondsMax) {
    throw new VmFileInvalid(
      `"${key}_timeout_seconds" must be above 0, at most ${timeoutSecondsMax}`,
    )
  }
  if (value === undefined || value === null) return null
  const command =
    typeof value === 'string'
      ? ['/bin/sh', '-c', value]
      : list(value, key).map((word) => textOf(word, key) ?? '')
  if (command.length === 0) throw new VmFileInvalid(`"${key}" is empty`)
  return { command, timeoutMs: timeout * 1000 }
}

function mapping(value: unknown, what: string, keys: string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new VmFileInvalid(`${what} must hold keys with values`)
  }
  for (const key of Object.keys(value)) {
    if (!keys.includes(key)) {
      throw new VmFileInvalid(`unknown key "${key}"; known are ${keys.join(', ')}`)
    }
  }
  return value as Record<string, unknown>
}

function list(value: unknown, key: string): unknown[] {
  if (!Array.isArray(value)) throw new VmFileInvalid(`"${key}" must be a list`)
  return value
}

function textOf(value: unknown, key: string): string | null {
  if (value === undefined || value === null) return null
  const text = typeof value === 'number' ? String(value) : value
  if (typeof text !== 'string' || text === '' || text.length > textMax || text.includes('\0')) {
    throw new VmFileInvalid(`"${key}" must be a text of 1 to ${textMax} characters`)
  }
  return text
}

const firstLine = (message: string) => message.split('\n')[0] ?? ''
