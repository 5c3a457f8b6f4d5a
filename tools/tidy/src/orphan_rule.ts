// A source file that nothing leads to is dead: neither imported nor named by a script, a
// package.json or a string of another file (a program that is started, a worker).
import { dirname, join } from 'node:path'
import { importsOf } from './import_rule.ts'
import { packageOf, workspacePackages } from './packages.ts'
import { isTest, type SourceTree, type Violation } from './source_tree.ts'

export function checkOrphans(tree: SourceTree): Violation[] {
  const packages = workspacePackages(tree)
  const used = new Set<string>()
  const named = new Set<string>()
  for (const [path, text] of tree) {
    if (/\.tsx?$/.test(path)) {
      for (const { specifier } of importsOf(text)) used.add(join(dirname(path), specifier))
    }
    if (/(\.(tsx?|sh|py|json|yaml)|\/run)$/.test(path)) {
      const own = path.slice(path.lastIndexOf('/') + 1)
      // `main.${extension}`: sources and what was built of them differ in it.
      for (const [, stem] of text.matchAll(/([\w-]+)\.(?:ts\b|\$\{)/g)) {
        if (`${stem}.ts` !== own) named.add(`${stem}.ts`)
      }
    }
  }
  return [...tree.keys()]
    .filter((path) => packageOf(packages, path) !== undefined && /\.tsx?$/.test(path))
    .filter((path) => !isTest(path) && !/\/(index|vitest\.config)\.ts$/.test(path))
    .filter((path) => !used.has(path) && !named.has(path.slice(path.lastIndexOf('/') + 1)))
    .map((path) => ({ path, line: 1, message: 'nobody imports or starts this file' }))
}
