// The stages of the data path know each other by their interfaces alone.
import { codeLines, isTest, type SourceTree, type Violation } from './source_tree.ts'

// The interface header of each stage, and what the interfaces hand over; everybody on the data path
// may include them.
const interfaces = new Set([
  'source/block_source.h',
  'diff/diff.h',
  'compress/codec.h',
  'stream/channel.h',
  'stream/frame.h',
  'target/block_target.h',
])

// Stages that may include every header of another folder. What rests was encoded: the repository
// knows the interface of compress and of no other stage.
const mayInclude: Record<string, string[]> = {
  core: [],
  source: ['core'],
  diff: ['core', 'repository'],
  compress: ['core'],
  target: ['core', 'repository'],
  stream: ['core', 'source', 'diff', 'compress', 'target', 'repository'],
  repository: ['core'],
}

export function checkIncludes(tree: SourceTree): Violation[] {
  const found: Violation[] = []
  for (const [path, text] of tree) {
    if (!/^native\/.*\.(cc|h)$/.test(path)) continue
    for (const [index, line] of codeLines(text).entries()) {
      const header = /^\s*#\s*include\s*["<]([^">]+)[">]/.exec(line)?.[1]
      const message = header === undefined ? null : checkInclude(path, header)
      if (message !== null) found.push({ path, line: index + 1, message })
    }
  }
  return found
}

function checkInclude(path: string, header: string): string | null {
  if (/^(napi|node_api|node_addon_api|js_native_api)\b/.test(header)) {
    return path.startsWith('native/addon/')
      ? null
      : `includes ${header}: only native/addon knows Node`
  }
  const stage = /^native\/src\/([a-z]+)\//.exec(path)?.[1]
  const [folder = ''] = header.split('/')
  if (stage === undefined || isTest(path) || !(folder in mayInclude) || folder === stage)
    return null
  if (mayInclude[stage]?.includes(folder)) return null
  if (stage === 'repository' && header === 'compress/codec.h') return null
  if (stage !== 'core' && stage !== 'repository' && interfaces.has(header)) return null
  return `includes ${header}: ${stage} may not see the inside of ${folder}`
}

/** A header that nobody includes is dead. */
export function checkHeaders(tree: SourceTree): Violation[] {
  const included = new Set<string>()
  for (const [path, text] of tree) {
    if (!/^native\/.*\.(cc|h)$/.test(path)) continue
    for (const match of text.matchAll(/^\s*#\s*include\s*"([^"]+)"/gm)) included.add(match[1] ?? '')
  }
  return [...tree.keys()]
    .filter((path) => /^native\/.*\.h$/.test(path))
    .filter((path) => ![...included].some((header) => path.endsWith(`/${header}`)))
    .map((path) => ({ path, line: 1, message: 'nobody includes this header' }))
}
