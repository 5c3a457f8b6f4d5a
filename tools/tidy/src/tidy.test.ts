import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { checkTree, readSourceTree, type SourceTree } from './index.ts'

const root = fileURLToPath(new URL('../../..', import.meta.url))

const manifest = (
  name: string,
  layer: number,
  dependencies: string[],
  folder: string,
): [string, string] => [
  folder,
  JSON.stringify({
    name: `@blockferry/${name}`,
    exports: { '.': './src/index.ts' },
    dependencies: Object.fromEntries(dependencies.map((each) => [each, '*'])),
    nx: { tags: [`layer:${layer}`] },
  }),
]

// A small workspace without a fault; each test plants one.
function sample(planted: Record<string, string> = {}): SourceTree {
  const packages = [
    manifest('core', 0, [], 'libs/core'),
    manifest('errors', 1, ['@blockferry/core', '@grpc/grpc-js'], 'libs/errors'),
    manifest('tape', 3, ['@blockferry/core', '@blockferry/agent'], 'libs/tape'),
    manifest('agent', 3, ['@blockferry/core'], 'libs/agent'),
    manifest('move', 4, ['@blockferry/errors', '@blockferry/catalog'], 'services/move'),
    manifest('catalog', 4, ['@grpc/grpc-js'], 'services/catalog'),
    manifest('testkit', 9, ['@blockferry/move'], 'libs/testkit'),
  ]
  return new Map([
    ['package.json', JSON.stringify({ devDependencies: { vitest: '1.0.0' } })],
    ...packages.map(([folder, text]): [string, string] => [`${folder}/package.json`, text]),
    ['libs/core/src/index.ts', "export { now } from './clock.ts'"],
    ['libs/core/src/clock.ts', 'export const now = () => Date.now()'],
    ['libs/errors/src/index.ts', "import { status } from '@grpc/grpc-js'"],
    ['services/move/src/index.ts', "import { BackupError } from '@blockferry/errors'"],
    ['services/move/src/config.ts', "export const home = process.env['HOME'] // config.ts"],
    ['services/move/src/main.ts', "import { home } from './config.ts'"],
    ['services/move/package.json', String(packages[4]?.[1]).replace('{', '{"bin":"main.ts",')],
    ['services/move/src/index.test.ts', "import { it } from 'vitest'\nsetTimeout(() => {}, 1)"],
    ['services/move/src/spoken.ts', '// setTimeout, Date.now and process.env are only spoken of'],
    ['services/move/src/speaker.test.ts', "import './spoken.ts'"],
    ['native/src/core/status.h', '#include <string>'],
    ['native/src/source/block_source.h', '#include "core/status.h"'],
    ['native/src/source/raw_source.h', '#include "source/block_source.h"'],
    ['native/src/source/raw_source.cc', '#include "source/raw_source.h"'],
    ['native/addon/addon.cc', '#include <napi.h>\n#include "source/raw_source.h"'],
    ...Object.entries(planted),
  ])
}

const faults: [string, Record<string, string>, string][] = [
  [
    'a service that imports another service',
    { 'services/move/src/index.ts': "import { find } from '@blockferry/catalog'" },
    'services/move/src/index.ts:1: imports @blockferry/catalog of layer 4',
  ],
  [
    'two libraries of one layer that import each other',
    { 'libs/tape/src/index.ts': "\nimport {\n  walk,\n} from '@blockferry/agent'" },
    'libs/tape/src/index.ts:4: imports @blockferry/agent of layer 3',
  ],
  [
    'a product file that imports the test kit',
    {
      'libs/agent/package.json': manifest('agent', 3, ['@blockferry/testkit'], 'libs/agent')[1],
      'libs/agent/src/index.ts': "export * from '@blockferry/testkit'",
    },
    'libs/agent/src/index.ts:1: imports @blockferry/testkit of layer 9',
  ],
  [
    'an import that package.json does not declare',
    { 'libs/agent/src/index.ts': `const pg = await ${'imp' + "ort('pg')"}` },
    'libs/agent/src/index.ts:1: imports pg, which libs/agent/package.json does not declare',
  ],
  [
    'a test dependency in the product',
    { 'libs/agent/src/index.ts': "import { it } from 'vitest'" },
    'libs/agent/src/index.ts:1: imports vitest, which',
  ],
  [
    'a deep import',
    { 'libs/agent/src/index.ts': "import { now } from '@blockferry/core/src/clock.ts'" },
    'imports @blockferry/core/src/clock.ts, which @blockferry/core does not export',
  ],
  [
    'a relative import out of the package',
    { 'libs/agent/src/index.ts': "import { now } from '../../core/src/clock.ts'" },
    'imports libs/core/src/clock.ts, a file of another package',
  ],
  ['a clock', { 'libs/agent/src/index.ts': 'const t = Date.now()' }, ':1: Date.now'],
  ['a date of now', { 'libs/agent/src/index.ts': 'const t = new Date()' }, ':1: new Date()'],
  ['a timer', { 'libs/agent/src/index.ts': '\nsetInterval(f, 1)' }, ':2: timers'],
  [
    'a timer by import',
    { 'libs/agent/src/index.ts': "import 'node:timers/promises'" },
    'node:timers',
  ],
  ['chance', { 'libs/agent/src/index.ts': 'const x = Math.random()' }, ':1: Math.random'],
  ['the environment', { 'libs/agent/src/index.ts': 'const x = process.env.X' }, ':1: process.env'],
  [
    'a gRPC code outside libs/errors',
    { 'services/catalog/src/index.ts': "import { Server, status } from '@grpc/grpc-js'" },
    'services/catalog/src/index.ts:1: status of grpc-js',
  ],
  [
    'Node in the core',
    { 'native/src/source/raw_source.cc': '#include "source/raw_source.h"\n#include <napi.h>' },
    'native/src/source/raw_source.cc:2: includes napi.h',
  ],
  [
    'the inside of another stage',
    { 'native/src/target/folder.cc': '#include "source/raw_source.h"' },
    'native/src/target/folder.cc:1: includes source/raw_source.h',
  ],
  [
    'a stage in the core',
    { 'native/src/core/status.h': '#include "source/block_source.h"' },
    'native/src/core/status.h:1: includes source/block_source.h',
  ],
  ['a header for nobody', { 'native/src/diff/old.h': '' }, 'native/src/diff/old.h:1: nobody'],
  ['a file for nobody', { 'libs/agent/src/old.ts': '' }, 'libs/agent/src/old.ts:1: nobody'],
  [
    'an edited migration',
    {
      'services/move/migrations/0001_sessions.sql': 'SELECT 2;',
      'tools/tidy/released_migrations.sha256': `${'0'.repeat(64)}  services/move/migrations/0001_sessions.sql\n`,
    },
    'services/move/migrations/0001_sessions.sql:1: a released migration was edited',
  ],
  [
    'a path of one machine',
    { 'docs/start.md': `Run ${['', 'home', 'alice', 'blockferry'].join('/')}.` },
    'docs/start.md:1: a path of one machine',
  ],
  [
    'unfinished work',
    { 'libs/agent/src/index.ts': `// ${'TO' + 'DO'}: later` },
    'libs/agent/src/index.ts:1: unfinished',
  ],
]

describe('tidy', () => {
  it('finds nothing in a workspace that keeps every rule', () => {
    expect(checkTree(sample())).toEqual([])
  })

  it.each(faults)('finds %s', (_, planted, message) => {
    const found = checkTree(sample(planted))
    expect(found).toHaveLength(1)
    expect(found[0]).toContain(message)
  })

  it('finds nothing in this repository', () => {
    const tree = readSourceTree(root)
    expect(tree.size).toBeGreaterThan(50)
    expect(checkTree(tree)).toEqual([])
  })
})
