// A script that starts a machine again from restored images: the machine's own QEMU command line
// with the new images in it. Its sockets, logs and pid file go into the folder of the script, so
// that the original and the restored machine do not take each other's.
//
// UUID and network addresses stay as they were: the restored machine is the same machine.
import { basename, dirname } from 'node:path'
import { type MachineOption, type PlacedImage, placeDisks } from './machine_disks.ts'
import { formatOptions, keepKeys, optionValue, parseOptions, setValue } from './qemu_options.ts'

export interface ScriptRequest {
  scriptPath: string
  vmName: string
  backupId: string
  /** Backup.vm_config_json. */
  vmConfigJson: string
  /** Every disk of the backup. */
  disks: string[]
  /** Those that are restored. */
  images: PlacedImage[]
}

interface MachineConfig {
  commandLine: string[]
  diskFiles: Record<string, string>
}

/** Null when the machine has no command line: a machine of a folder. */
export function startScript(request: ScriptRequest): string | null {
  const config = parseConfig(request.vmConfigJson)
  const [program, ...parameters] = config?.commandLine ?? []
  if (!config || program === undefined) return null
  const folder = dirname(request.scriptPath)
  const images = new Map<string, PlacedImage>()
  for (const image of request.images) {
    const file = config.diskFiles[image.disk]
    const path = dirname(image.path) === folder ? `./${basename(image.path)}` : image.path
    if (file !== undefined) images.set(file, { ...image, path })
  }
  const options = optionsOf(parameters, new Set(Object.values(config.diskFiles)))
  const placed = placeDisks(options, images)
  const needed = new Set([...request.disks, ...Object.keys(config.diskFiles)])
  const missing = [...needed].filter((disk) => !placed.has(disk))
  const names = new OwnNames()
  const kept = options.filter((option) => ownPlace(option, names))
  return scriptText(request, program, kept, missing)
}

function parseConfig(text: string): MachineConfig | null {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return null
  }
  const { commandLine, diskFiles } = (value ?? {}) as Record<string, unknown>
  const isText = (item: unknown): item is string => typeof item === 'string' && !item.includes('\0')
  if (!Array.isArray(commandLine) || !commandLine.every(isText)) return null
  const files = Object.entries(diskFiles ?? {}).filter((entry) => isText(entry[1]))
  return { commandLine, diskFiles: Object.fromEntries(files) as Record<string, string> }
}

/** Options that never take a value, among those that matter here. */
const flags = new Set(['-daemonize', '-S', '-s', '-snapshot', '-nographic', '-nodefaults'])

/** A word without dash after an option is its value; a disk's image alone stands for `-hda`. */
function optionsOf(parameters: string[], diskFiles: ReadonlySet<string>): MachineOption[] {
  const options: MachineOption[] = []
  for (let index = 0; index < parameters.length; index++) {
    const word = parameters[index] ?? ''
    const next = parameters[index + 1]
    if (!word.startsWith('-')) {
      options.push({ name: '', value: word })
      continue
    }
    const name = word.replace(/^--/, '-')
    const alone = flags.has(name) || next === undefined || /^-[A-Za-z-]/.test(next)
    const isImage = next !== undefined && diskFiles.has(next) && !/^-(hd[a-d]|drive)$/.test(name)
    if (alone || isImage) options.push({ name, value: null })
    else {
      options.push({ name, value: next })
      index++
    }
  }
  return options
}

/** Names in the script's folder, each given once. */
class OwnNames {
  readonly #taken = new Set<string>()

  take(path: string, otherwise: string): string {
    const wanted = basename(path) || otherwise
    let name = wanted
    for (let count = 2; this.#taken.has(name); count++) name = `${count}-${wanted}`
    this.#taken.add(name)
    return `./${name}`
  }
}

const dropped = new Set(['-daemonize', '-S', '-incoming', '-loadvm', '-s', '-gdb'])
const filePlaces: Record<string, string> = { '-pidfile': 'pid', '-D': 'qemu.log' }
const lineDevices = new Set(['-qmp', '-qmp-pretty', '-monitor', '-serial', '-parallel'])

/** Moves what an option makes or listens on to the script's folder; false drops the option. */
function ownPlace(option: MachineOption, names: OwnNames): boolean {
  const { name, value } = option
  if (dropped.has(name)) return false
  if (value === null) return true
  const file = filePlaces[name]
  if (file !== undefined) option.value = names.take(value, file)
  else if (lineDevices.has(name)) option.value = ownLine(name, value, names)
  else if (name === '-chardev') option.value = ownChardev(value, names)
  else if (name === '-vnc') option.value = ownVnc(value, names)
  else if (name === '-spice') option.value = ownSpice(value, names)
  else if (name === '-netdev' || name === '-nic') option.value = withoutForwards(value)
  return true
}

function ownLine(name: string, value: string, names: OwnNames): string {
  const [, mon = '', rest = ''] = /^(mon:)?(.*)$/s.exec(value) ?? []
  const socket = `${name.slice(1)}.sock`
  if (/^(tcp|telnet|websocket):/.test(rest)) {
    return `${mon}unix:${names.take('', socket)},server=on,wait=off`
  }
  const [, kind, place = ''] = /^(unix|file):(.*)$/s.exec(rest) ?? []
  if (kind === undefined) return value
  const parsed = parseOptions(place)
  const [path] = parsed.entries[0] ?? ['']
  const isServer = parsed.entries.some(([key, on]) => key === 'server' && on !== 'off')
  if (kind === 'unix' && !isServer) return value
  parsed.entries[0] = [names.take(path, socket), null]
  return `${mon}${kind}:${formatOptions(parsed)}`
}

function ownChardev(value: string, names: OwnNames): string {
  const parsed = parseOptions(value)
  const kind = parsed.entries[0]?.[0]
  const id = String(optionValue(parsed, 'id') ?? 'chardev')
  const server = parsed.entries.find(([key]) => key === 'server')
  const listens = kind === 'socket' && server !== undefined && server[1] !== 'off'
  if (listens) {
    const path = String(optionValue(parsed, 'path') ?? '')
    keepKeys(parsed, (key) => !/^(path|host|port|to|ipv4|ipv6|fd|abstract|tight)$/.test(key))
    setValue(parsed, 'path', names.take(path, `${id}.sock`))
  } else if (kind === 'file') {
    setValue(parsed, 'path', names.take(String(optionValue(parsed, 'path') ?? ''), `${id}.log`))
  }
  const log = optionValue(parsed, 'logfile')
  if (typeof log === 'string') setValue(parsed, 'logfile', names.take(log, `${id}.log`))
  return formatOptions(parsed)
}

function ownVnc(value: string, names: OwnNames): string {
  if (value === 'none') return value
  const parsed = parseOptions(value)
  parsed.entries[0] = [`unix:${names.take('', 'vnc.sock')}`, null]
  keepKeys(parsed, (key) => key !== 'websocket' && key !== 'to')
  return formatOptions(parsed)
}

function ownSpice(value: string, names: OwnNames): string {
  const parsed = parseOptions(value)
  keepKeys(parsed, (key) => !/^(port|tls-port|addr|unix|ipv4|ipv6)$/.test(key))
  setValue(parsed, 'unix', 'on')
  setValue(parsed, 'addr', names.take('', 'spice.sock'))
  return formatOptions(parsed)
}

/** Ports of the host belong to the original machine. */
function withoutForwards(value: string): string {
  const parsed = parseOptions(value)
  keepKeys(parsed, (key) => key !== 'hostfwd' && key !== 'guestfwd')
  return formatOptions(parsed)
}

function scriptText(
  request: ScriptRequest,
  program: string,
  options: MachineOption[],
  missing: string[],
): string {
  const lines = options.map(({ name, value }) =>
    [name || null, value]
      .filter((word) => word !== null)
      .map(quote)
      .join(' '),
  )
  return `#!/bin/sh
# Starts the machine ${printable(request.vmName)} from backup ${printable(request.backupId)}.
#
# It is the same machine: UUID and network addresses are those of the original. Do not run both on
# one network at the same time. Ports of the host that led into the original are left out; bridges,
# passed-through devices and images that the backup did not cover are used as the original did.
# Sockets, logs and the pid file are made in the folder of this script.
# Arguments of this script are added to QEMU's, for example: -display none
set -eu
unset CDPATH
case $0 in */*) cd -- "\${0%/*}/" ;; esac
${missing.length > 0 ? refusal(missing) : ''}exec ${[quote(program), ...lines, '"$@"'].join(' \\\n  ')}
`
}

/** The original's disks must not be started by accident. */
const refusal = (missing: string[]): string =>
  `echo ${quote(`not started: these disks were not restored, or are not on the command line that the machine was started with: ${missing.join(', ')}; the command below may still name original images, edit it`)} >&2
exit 1
`

/** One line whatever it holds. */
const printable = (text: string): string =>
  JSON.stringify(text).replaceAll(/[\u2028\u2029\u0085]/g, '?')

const quote = (word: string): string =>
  /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
