// QEMU's option values, `driver=qcow2,node-name=disk0,file.filename=a,,b`, and their JSON form, as
// one list of dotted keys. In the text form a comma within a value is doubled.

export interface QemuOptions {
  json: boolean
  /** In their order; a word without `=` has the value null. Arrays of the JSON form stay whole. */
  entries: [key: string, value: unknown][]
}

export function parseOptions(text: string): QemuOptions {
  if (text.startsWith('{')) {
    const value: unknown = JSON.parse(text)
    return { json: true, entries: [...flatten(value as object, '')] }
  }
  return { json: false, entries: splitWords(text).map(entryOf) }
}

export function formatOptions({ json, entries }: QemuOptions): string {
  if (json) return JSON.stringify(unflatten(entries))
  return entries
    .map(([key, value]) =>
      value === null ? doubleCommas(key) : `${key}=${doubleCommas(String(value))}`,
    )
    .join(',')
}

export const optionValue = (options: QemuOptions, key: string): unknown =>
  options.entries.find(([name]) => name === key)?.[1]

/** Sets a key in its place, or at the end. */
export function setValue(options: QemuOptions, key: string, value: unknown): void {
  const entry = options.entries.find(([name]) => name === key)
  if (entry) entry[1] = value
  else options.entries.push([key, value])
}

export function keepKeys(options: QemuOptions, keep: (key: string) => boolean): void {
  options.entries = options.entries.filter(([key]) => keep(key))
}

const doubleCommas = (value: string): string => value.replaceAll(',', ',,')

function entryOf(word: string): [string, unknown] {
  const at = word.indexOf('=')
  return at < 0 ? [word, null] : [word.slice(0, at), word.slice(at + 1)]
}

/** Words between single commas, with doubled commas made single. */
function splitWords(text: string): string[] {
  const words: string[] = []
  let word = ''
  for (let index = 0; index < text.length; index++) {
    if (text[index] !== ',') word += text[index]
    else if (text[index + 1] === ',') {
      word += ','
      index++
    } else {
      words.push(word)
      word = ''
    }
  }
  words.push(word)
  return words
}

function* flatten(value: object, prefix: string): Generator<[string, unknown]> {
  for (const [key, inner] of Object.entries(value)) {
    const isObject = typeof inner === 'object' && inner !== null && !Array.isArray(inner)
    if (isObject) yield* flatten(inner, `${prefix}${key}.`)
    else yield [`${prefix}${key}`, inner]
  }
}

function unflatten(entries: [string, unknown][]): Record<string, unknown> {
  const root: Record<string, unknown> = {}
  for (const [path, value] of entries) {
    const keys = path.split('.')
    const last = keys.pop() ?? ''
    let node = root
    for (const key of keys) {
      node[key] ??= {}
      node = node[key] as Record<string, unknown>
    }
    node[last] = value
  }
  return root
}
