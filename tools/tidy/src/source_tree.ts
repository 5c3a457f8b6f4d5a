import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** Text of every file by its path from the root of the repository. */
export type SourceTree = ReadonlyMap<string, string>

/** Reads what git tracks or would track; generated code and binary files are left out. */
export function readSourceTree(root: string): SourceTree {
  const listed = execFileSync('git', ['ls-files', '-z', '-co', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  })
  const tree = new Map<string, string>()
  for (const path of new Set(listed.split('\0'))) {
    if (!isText(path)) continue
    try {
      tree.set(path, readFileSync(join(root, path), 'utf8'))
    } catch (thrown) {
      // Listed by git, but already removed from the folder.
      if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') throw thrown
    }
  }
  return tree
}

const isText = (path: string): boolean =>
  path !== '' &&
  !path.includes('/src/gen/') &&
  path !== 'package-lock.json' &&
  /(\.(ts|tsx|cc|h|sh|py|sql|md|json|yaml|yml|proto|txt|sha256|npmrc)|\/run|\/init|\/[a-z-]+)$/.test(
    `/${path}`,
  )

export const isTest = (path: string): boolean => /(\.test\.tsx?|_test\.cc)$/.test(path)

/** A broken rule: where, and what to do instead. */
export interface Violation {
  path: string
  line: number
  message: string
}

/** Lines of a TypeScript or C++ file with comments emptied, so that numbers of lines stay right. */
export function codeLines(text: string): string[] {
  const withoutBlocks = text.replaceAll(/^\s*\/\*[\s\S]*?\*\//gm, (comment) =>
    '\n'.repeat(comment.split('\n').length - 1),
  )
  return withoutBlocks.split('\n').map((line) => line.replace(/(^|\s)\/\/.*$/, ''))
}
