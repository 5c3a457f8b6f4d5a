// What a backup leaves in the world outside its repository's packs: points, files, processes,
// nodes and bitmaps in QEMU. Two lists that are equal mean that nothing was left behind.
import { readdir } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { monotonicMs, sleep } from '@blockferry/core'
import { Qmp } from '@blockferry/hypervisor'
import type { Lab } from '@blockferry/testkit'
import { check } from './row.ts'

const cleanMsMax = 20_000
/** The database's own files, and what the tests read for comparison. */
const foreign = new Set(['postgres', 'references'])

interface BlockNode {
  'node-name': string
  'dirty-bitmaps'?: { name: string }[]
}

/** A monitor of the tests' own, open as long as `work` takes. */
export async function withWatchMonitor<T>(lab: Lab, work: (qmp: Qmp) => Promise<T>): Promise<T> {
  await using qmp = await Qmp.connect(join(lab.guest.folder, 'watch.sock'))
  return await work(qmp)
}

/** Everything that an unfinished backup could have left. */
export async function traces(lab: Lab): Promise<string[]> {
  const { points } = await lab.stand.snapshot.listPoints({ pageSize: 0, pageToken: '' })
  return [
    ...points.map(({ pointId, vm }) => `point ${pointId} of ${vm}`),
    ...(await files(lab.folder)).map((path) => `file ${path}`),
    ...(await lab.processes()).map((line) => `process ${line}`),
    ...(await withWatchMonitor(lab, inQemu)),
  ].sort()
}

/** Waits until the traces are those of `before`, as far as `counts` says they count. */
export async function untilGone(
  lab: Lab,
  before: string[],
  counts: (trace: string) => boolean,
): Promise<void> {
  const startMs = monotonicMs()
  for (;;) {
    const now = await traces(lab)
    const more = now.filter((trace) => !before.includes(trace) && counts(trace))
    const fewer = before.filter((trace) => !now.includes(trace) && counts(trace))
    if (more.length === 0 && fewer.length === 0) return
    const told = `left behind: ${more.join('; ') || 'nothing'}; missing: ${fewer.join('; ') || 'nothing'}`
    check(monotonicMs() - startMs < cleanMsMax, told)
    await sleep(200)
  }
}

/** Sealed packs stay by design: the next backup names their blocks instead of storing them. */
async function files(root: string, folder: string = root): Promise<string[]> {
  const found: string[] = []
  for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
    const path = join(folder, entry.name)
    if (!entry.isDirectory()) found.push(relative(root, path))
    else if (!foreign.has(entry.name)) found.push(...(await files(root, path)))
  }
  return found.filter((path) => !/\/packs\/[0-9a-f]{2}\/[0-9a-f]{32}\.pack$/.test(path))
}

async function inQemu(qmp: Qmp): Promise<string[]> {
  const nodes = await qmp.execute<BlockNode[]>('query-named-block-nodes', { flat: true })
  const exports = await qmp.execute<{ id: string }[]>('query-block-exports')
  return [
    ...nodes
      .map((node) => node['node-name'])
      .filter((name) => name.startsWith('bf.'))
      .map((name) => `node ${name}`),
    ...exports.map(({ id }) => `export ${id}`),
    ...nodes
      .filter((node) => /^disk\d+$/.test(node['node-name']))
      .flatMap((node) =>
        (node['dirty-bitmaps'] ?? []).map(({ name }) => `bitmap ${name} of ${node['node-name']}`),
      ),
  ]
}
