// A released migration has run in databases of users: it is never edited again. The list holds
// the digest of each, as sha256sum prints it; a release adds its new ones.
import { createHash } from 'node:crypto'
import type { SourceTree, Violation } from './source_tree.ts'

export const releasedList = 'tools/tidy/released_migrations.sha256'

export function checkMigrations(tree: SourceTree): Violation[] {
  const lines = (tree.get(releasedList) ?? '').split('\n').filter((line) => line !== '')
  return lines.flatMap((line) => {
    const [digest, path = ''] = line.split(/\s+/)
    const text = tree.get(path)
    if (text === undefined) return [{ path, line: 1, message: 'a released migration is gone' }]
    if (createHash('sha256').update(text).digest('hex') === digest) return []
    return [{ path, line: 1, message: 'a released migration was edited; add a new one instead' }]
  })
}
