// Words that product code does not contain, each with what to use instead.
import { outside, packageOf, workspacePackages } from './packages.ts'
import { codeLines, isTest, type SourceTree, type Violation } from './source_tree.ts'

const globals: [RegExp, string][] = [
  [/\bDate\.now\b/, 'Date.now: use wallMs or monotonicMs of @blockferry/core'],
  [/\bnew Date\(\)/, 'new Date(): use wallMs of @blockferry/core'],
  [/(?<![.\w])set(Timeout|Interval)\b/, 'timers: use sleep, after or within of @blockferry/core'],
  [/['"]node:timers/, 'node:timers: use sleep, after or within of @blockferry/core'],
  [/\bMath\.random\b/, 'Math.random: use randomHex of @blockferry/core'],
  [/\bprocess\.env\b/, 'process.env: read it in config.ts'],
]

/** Clocks, timers, chance and environment come from one place each. */
export function checkGlobals(tree: SourceTree): Violation[] {
  const packages = workspacePackages(tree)
  return search(tree, globals, (path) => {
    const owner = packageOf(packages, path)
    if (owner === undefined || owner.layer === outside || !/\.tsx?$/.test(path)) return false
    return !isTest(path) && owner.folder !== 'libs/core' && !path.endsWith('/config.ts')
  })
}

const grpcStatus: [RegExp, string][] = [
  [
    /import\s[^'"]*\bstatus\b[^'"]*from\s*['"]@grpc\/grpc-js['"]/,
    'status of grpc-js: the code of a failure follows from its reason, in libs/errors alone',
  ],
]

/** The gRPC code of a failure is decided in one table. */
export function checkGrpcStatus(tree: SourceTree): Violation[] {
  const packages = workspacePackages(tree)
  return search(tree, grpcStatus, (path) => {
    const owner = packageOf(packages, path)
    if (owner === undefined || owner.layer === outside || !/\.tsx?$/.test(path)) return false
    return !isTest(path) && owner.folder !== 'libs/errors'
  })
}

const leftovers: [RegExp, string][] = [
  [
    /(?<![\w.$})-])\/(work|root|home\/[a-z][\w-]*)\//,
    'a path of one machine: take it from configuration',
  ],
]

/** No file names a folder of the machine it was written on. */
export const checkMachinePaths = (tree: SourceTree): Violation[] =>
  [...tree].flatMap(([path, text]) => searchLines(path, text.split('\n'), leftovers))

const postponed: [RegExp, string][] = [
  [/\b(TO[D]O|FIX[M]E)\b/, 'unfinished: finish it or open an issue'],
]

/** What is unfinished stands in an issue, not in the code. */
export const checkPostponed = (tree: SourceTree): Violation[] =>
  [...tree]
    .filter(([path]) => /\.(ts|tsx|cc|h|sh|sql|proto)$/.test(path))
    .flatMap(([path, text]) => searchLines(path, text.split('\n'), postponed))

function search(
  tree: SourceTree,
  words: [RegExp, string][],
  applies: (path: string) => boolean,
): Violation[] {
  return [...tree].flatMap(([path, text]) =>
    applies(path) ? searchLines(path, codeLines(text), words) : [],
  )
}

const searchLines = (path: string, lines: string[], words: [RegExp, string][]): Violation[] =>
  lines.flatMap((text, index) =>
    words.flatMap(([word, message]) =>
      word.test(text) ? [{ path, line: index + 1, message }] : [],
    ),
  )
