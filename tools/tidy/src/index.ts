import {
  checkGlobals,
  checkGrpcStatus,
  checkMachinePaths,
  checkPostponed,
} from './forbidden_rule.ts'
import { checkImports } from './import_rule.ts'
import { checkMigrations } from './migration_rule.ts'
import { checkHeaders, checkIncludes } from './native_rule.ts'
import { checkOrphans } from './orphan_rule.ts'
import type { SourceTree } from './source_tree.ts'

export { readSourceTree, type SourceTree } from './source_tree.ts'

const rules = [
  checkImports,
  checkGlobals,
  checkGrpcStatus,
  checkIncludes,
  checkHeaders,
  checkOrphans,
  checkMigrations,
  checkMachinePaths,
  checkPostponed,
]

/** Every broken rule of the tree, `path:line: what is wrong`. */
export const checkTree = (tree: SourceTree): string[] =>
  rules.flatMap((rule) =>
    rule(tree).map(({ path, line, message }) => `${path}:${line}: ${message}`),
  )
