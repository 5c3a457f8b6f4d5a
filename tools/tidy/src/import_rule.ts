// Who may import whom: a package only from layers below its own, only what its package.json
// declares, only by the name that the other one exports.
import { dirname, join } from 'node:path'
import {
  outside,
  packageOf,
  rootDevDependencies,
  type WorkspacePackage,
  workspacePackages,
} from './packages.ts'
import { codeLines, isTest, type SourceTree, type Violation } from './source_tree.ts'

export interface Import {
  line: number
  specifier: string
}

const importPattern =
  /(?:^|[\n;])\s*(?:import|export)\s(?:[^'"`;]*?\sfrom\s*)?['"]([^'"\n]+)['"]|\bimport\(\s*['"]([^'"\n]+)['"]/g

/** The imports and re-exports of a TypeScript file. */
export function importsOf(text: string): Import[] {
  const code = codeLines(text).join('\n')
  return [...code.matchAll(importPattern)].map((match) => ({
    line: code.slice(0, match.index + match[0].length).split('\n').length,
    specifier: match[1] ?? match[2] ?? '',
  }))
}

// The exceptions to "only from layers below": a tape catalog reads repositories.
const besides = [['@blockferry/tape', '@blockferry/repository']]

export function checkImports(tree: SourceTree): Violation[] {
  const packages = workspacePackages(tree)
  const everybody = rootDevDependencies(tree)
  const found: Violation[] = []
  for (const [path, text] of tree) {
    const from = packageOf(packages, path)
    if (from === undefined || !/\.tsx?$/.test(path)) continue
    for (const { line, specifier } of importsOf(text)) {
      const message = specifier.startsWith('.')
        ? checkRelative(from, path, specifier)
        : checkPackage(packages, everybody, from, path, specifier)
      if (message !== null) found.push({ path, line, message })
    }
  }
  return found
}

function checkRelative(from: WorkspacePackage, path: string, specifier: string): string | null {
  const target = join(dirname(path), specifier)
  if (target.startsWith(`${from.folder}/`)) return null
  return `imports ${target}, a file of another package; import the package by its name`
}

function checkPackage(
  packages: WorkspacePackage[],
  everybody: Set<string>,
  from: WorkspacePackage,
  path: string,
  specifier: string,
): string | null {
  if (specifier.startsWith('node:')) return null
  const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/')
  const tester = isTest(path) || from.layer === outside
  if (name === from.name && tester) return null
  const declared =
    from.dependencies.has(name) ||
    (tester && (from.devDependencies.has(name) || everybody.has(name)))
  if (!declared) return `imports ${name}, which ${from.folder}/package.json does not declare`
  const to = packages.find((each) => each.name === name)
  if (to === undefined) return null
  if (!to.entries.has(specifier)) return `imports ${specifier}, which ${name} does not export`
  if (from.layer === outside || to.layer < from.layer) return null
  if (to.layer === outside && isTest(path)) return null
  if (besides.some(([one, other]) => one === from.name && other === name)) return null
  return `imports ${name} of layer ${to.layer}, but is of layer ${from.layer} itself`
}
