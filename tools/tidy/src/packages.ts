import { dirname } from 'node:path'
import type { SourceTree } from './source_tree.ts'

/** What tidy needs of a package.json of the workspace. */
export interface WorkspacePackage {
  name: string
  folder: string
  layer: number
  /** For the product itself. */
  dependencies: Set<string>
  /** For tests beside it, too. */
  devDependencies: Set<string>
  /** Specifiers others may import it by. */
  entries: Set<string>
}

/** Layer of what stands outside the product: tests, tools and the test kit. */
export const outside = 9

interface Manifest {
  name: string
  dependencies?: Record<string, string>
  optionalDependencies?: Record<string, string>
  devDependencies?: Record<string, string>
  exports?: Record<string, unknown>
  nx?: { tags?: string[] }
}

/** The packages of the workspace; the root, which has no layer, is not one of them. */
export function workspacePackages(tree: SourceTree): WorkspacePackage[] {
  const manifests = [...tree].filter(([path]) => path.endsWith('/package.json'))
  return manifests.flatMap(([path, text]) => {
    const manifest = JSON.parse(text) as Manifest
    const tag = manifest.nx?.tags?.find((each) => each.startsWith('layer:'))
    if (tag === undefined) return []
    const entries = Object.keys(manifest.exports ?? { '.': '' })
    return [
      {
        name: manifest.name,
        folder: dirname(path),
        layer: Number(tag.slice('layer:'.length)),
        dependencies: namesOf(manifest.dependencies, manifest.optionalDependencies),
        devDependencies: namesOf(manifest.devDependencies),
        entries: new Set(entries.map((entry) => manifest.name + entry.slice(1))),
      },
    ]
  })
}

/** Packages that tests of every package may use: the root's development dependencies. */
export function rootDevDependencies(tree: SourceTree): Set<string> {
  const manifest = JSON.parse(tree.get('package.json') ?? '{}') as Manifest
  return namesOf(manifest.devDependencies)
}

const namesOf = (...lists: (Record<string, string> | undefined)[]): Set<string> =>
  new Set(lists.flatMap((list) => Object.keys(list ?? {})))

/** The package that a file belongs to. */
export const packageOf = (
  packages: WorkspacePackage[],
  path: string,
): WorkspacePackage | undefined => packages.find(({ folder }) => path.startsWith(`${folder}/`))
