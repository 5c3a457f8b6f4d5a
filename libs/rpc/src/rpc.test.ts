import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newLog, sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { catalog, move } from '@blockferry/proto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { connect, cutPage, type Handlers, pageOf, serve } from './index.ts'

const folder = mkdtempSync(join(tmpdir(), 'blockferry-rpc-'))
const address = `unix:${folder}/catalog.sock`
const log = newLog('test', 'silent')
let service: AsyncDisposable
let cancelledCalls = 0

const notOffered = async () => {
  throw new TypeError('secret of the inside')
}
const handlers = {
  getRepository: async ({ name }) => {
    throw new BackupError('NOT_FOUND', `read ${name}: there is none`, { name })
  },
  getBackup: async (_, { signal }) => {
    await sleep(60_000, signal).catch(() => {
      cancelledCalls++
    })
    return { backup: undefined }
  },
  deleteRepository: async () => ({}),
  updateRepository: async () => ({ repository: undefined }),
  advanceTime: async () => ({}),
  recordVerification: async () => ({}),
  createRepository: notOffered,
  unlockRepository: notOffered,
  listKeySlots: notOffered,
  addKeySlot: notOffered,
  removeKeySlot: notOffered,
  listRepositories: notOffered,
  recordBackup: notOffered,
  listBackups: notOffered,
  listProtectedVms: notOffered,
  planRetention: notOffered,
  rebuildCatalog: notOffered,
  removeBackup: notOffered,
  undeleteBackup: notOffered,
  holdBackup: notOffered,
  releaseBackup: notOffered,
} satisfies Handlers<catalog.CatalogServiceServer>

beforeEach(async () => {
  service = await serve<catalog.CatalogServiceServer>({
    address,
    name: 'blockferry.catalog.v1.CatalogService',
    definition: catalog.CatalogServiceService,
    handlers,
    log,
  })
})
afterEach(async () => {
  await service[Symbol.asyncDispose]()
  if (existsSync(folder)) rmSync(folder, { recursive: true })
})

const client = () =>
  connect<catalog.CatalogServiceServer>('catalog', catalog.CatalogServiceService, address)

describe('serve and connect', () => {
  it('carries reason and metadata of a failure across', async () => {
    using calls = client()
    const failure = await calls.getRepository({ name: 'repositories/x' }).catch((thrown) => thrown)
    expect(failure).toBeInstanceOf(BackupError)
    expect(failure.reason).toBe('NOT_FOUND')
    expect(failure.message).toBe('read repositories/x: there is none')
    expect(failure.metadata).toEqual({ name: 'repositories/x' })
  })

  it('tells nothing of a defect', async () => {
    using calls = client()
    const failure = await calls
      .listRepositories({ pageSize: 0, pageToken: '' })
      .catch((thrown) => thrown)
    expect(failure.reason).toBe('INTERNAL')
    expect(failure.message).not.toContain('secret')
  })

  it('aborts the handler when the deadline passes', async () => {
    using calls = client()
    const failure = await calls.getBackup({ name: 'x' }, { deadlineMs: 100 }).catch((e) => e)
    expect(failure.reason).toBe('DEADLINE_EXCEEDED')
    while (cancelledCalls === 0) await sleep(10)
  })

  it('names the service that does not run', async () => {
    using calls = connect<catalog.CatalogServiceServer>(
      'catalog',
      catalog.CatalogServiceService,
      `unix:${folder}/nobody.sock`,
    )
    const failure = await calls.deleteRepository({ name: 'x' }).catch((thrown) => thrown)
    expect(failure.reason).toBe('SERVICE_UNREACHABLE')
    expect(failure.message).toContain('catalog')
  })

  it('lets only this user connect', () => {
    expect(statSync(`${folder}/catalog.sock`).mode & 0o777).toBe(0o600)
  })

  it('refuses any address that is not local', async () => {
    for (const open of ['0.0.0.0:7000', '192.168.1.4:7000', '[::]:7000', 'unix:relative']) {
      const started = serve<catalog.CatalogServiceServer>({
        address: open,
        name: 'x',
        definition: catalog.CatalogServiceService,
        handlers,
        log,
      })
      await expect(started, open).rejects.toBeInstanceOf(BackupError)
    }
  })
})

describe('a watch', () => {
  it('ends when its caller left before the answer that fills the connection', async () => {
    const mover = `unix:${folder}/move.sock`
    const large = move.Session.fromPartial({ errorMessage: 'x'.repeat(2 * 1024 * 1024) })
    const ended = Promise.withResolvers<void>()
    const handlers = {
      async *watchSession(_: unknown, { signal }: { signal: AbortSignal }) {
        try {
          yield { session: move.Session.fromPartial({}) }
          while (!signal.aborted) await sleep(10)
          for (;;) yield { session: large }
        } finally {
          ended.resolve()
        }
      },
    } as unknown as Handlers<move.MoveServiceServer>
    await using _ = await serve<move.MoveServiceServer>({
      address: mover,
      name: 'blockferry.move.v1.MoveService',
      definition: move.MoveServiceService,
      handlers,
      log,
    })
    using calls = connect<move.MoveServiceServer>('move', move.MoveServiceService, mover)
    for await (const { session } of calls.watchSession({ name: 'sessions/s' })) {
      expect(session).toBeDefined()
      break
    }
    await ended.promise
  })
})

describe('pageOf', () => {
  it('refuses a token that no listing gave', () => {
    expect(() => pageOf({ pageSize: 0, pageToken: 'x; drop table' })).toThrow(BackupError)
    expect(pageOf({ pageSize: 5000, pageToken: '40' })).toEqual({ size: 1000, offset: 40 })
  })
})

describe('cutPage', () => {
  const named = (size: number) => catalog.Repository.fromPartial({ name: 'x'.repeat(size) })
  const cut = (sizes: number[], size: number, offset = 0) => {
    const page = cutPage(sizes.map(named), { size, offset }, catalog.Repository)
    return [page.items.length, page.nextPageToken]
  }

  it('names the place of the next page only when there is one', () => {
    expect(cut([1, 1, 1], 2, 10)).toEqual([2, '12'])
    expect(cut([1, 1], 2, 10)).toEqual([2, ''])
    expect(cut([], 2)).toEqual([0, ''])
  })

  it('ends a page before it outgrows a message, but never before its first element', () => {
    const large = 3 * 1024 * 1024
    expect(cut([large, large, 1], 3)).toEqual([1, '1'])
    expect(cut([2 * large, 1], 2)).toEqual([1, '1'])
  })
})
