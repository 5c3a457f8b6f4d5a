import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { backUp, makeDisk, mib, noise, withFolder } from './fixture.ts'
import {
  createRepository,
  cutReaders,
  type MoveDiskOptions,
  openRepository,
  type Repository,
  versions,
} from './index.ts'

const size = 64 * mib
const index = fileURLToPath(new URL('./index.ts', import.meta.url))

const withDisk = (use: (repository: Repository, disk: string, folder: string) => Promise<void>) =>
  withFolder(async (folder) => {
    await createRepository(join(folder, 'repository'), null)
    const repository = await openRepository(join(folder, 'repository'), false, null)
    const disk = join(folder, 'disk')
    await makeDisk(disk, size, [[0, noise('border', size)]])
    try {
      await use(repository, disk, folder)
    } finally {
      repository.close()
    }
  })

const sessionOf = (repository: Repository) =>
  repository.openSession({
    vm_pseudonym: repository.vmPseudonym('vm'),
    point_id: 'point',
    incarnation: 1,
    number: 1,
  })

const optionsFor = (path: string): MoveDiskOptions => ({
  disk_id: 'disk0',
  size_bytes: size,
  source: { kind: 'raw', path },
  changed: { kind: 'all' },
  base: null,
  earlier: null,
  compression: { codec: 'lz4', level: 0 },
  stall_timeout_ms: 10_000,
})

const thrown = (call: () => unknown): unknown => {
  try {
    return call()
  } catch (error) {
    return error
  }
}

describe('arguments of JavaScript', () => {
  it('that do not fit are ARGUMENT_INVALID and name the field', async () => {
    await withDisk(async (repository, disk) => {
      const session = await sessionOf(repository)
      const good = optionsFor(disk)
      const sparse: number[] = []
      sparse.length = 5_000_000
      const throwing = new Proxy(good, {
        get() {
          throw new Error('trap')
        },
      })
      const cases: [unknown, string][] = [
        [undefined, 'options'],
        [null, 'options'],
        [throwing, 'options.disk_id'],
        [{ ...good, disk_id: 7 }, 'options.disk_id'],
        [{ ...good, disk_id: '' }, 'options.disk_id'],
        [{ ...good, disk_id: 'a\nb' }, 'options.disk_id'],
        [{ ...good, disk_id: 'x'.repeat(5000) }, 'options.disk_id'],
        [{ ...good, size_bytes: -1 }, 'options.size_bytes'],
        [{ ...good, size_bytes: 1.5 }, 'options.size_bytes'],
        [{ ...good, size_bytes: Number.NaN }, 'options.size_bytes'],
        [{ ...good, size_bytes: 2 ** 60 }, 'options.size_bytes'],
        [{ ...good, size_bytes: 10n }, 'options.size_bytes'],
        [{ ...good, source: 'disk' }, 'options.source'],
        [{ ...good, source: { kind: 'tape', path: 'x' } }, 'options.source.kind'],
        [{ ...good, source: { kind: 'raw', path: 'a\0b' } }, 'options.source.path'],
        [{ ...good, changed: { kind: 'bitmap', context: '' } }, 'options.changed.context'],
        [{ ...good, changed: { kind: 'extents', extents: {} } }, 'options.changed.extents'],
        [
          { ...good, changed: { kind: 'extents', extents: [0, '1'] } },
          'options.changed.extents[1]',
        ],
        [{ ...good, changed: { kind: 'extents', extents: sparse } }, 'options.changed.extents[0]'],
        [{ ...good, changed: { kind: 'extents', extents: [0, 1] } }, 'options.base'],
        [{ ...good, base: { root: 'XYZ', size_bytes: size } }, 'options.base.root'],
        [{ ...good, base: { root: null, size_bytes: 1 } }, 'options.base.size_bytes'],
        [{ ...good, earlier: { root: 'XYZ', size_bytes: size } }, 'options.earlier.root'],
        [{ ...good, earlier: { root: null, size_bytes: 1 } }, 'options.earlier.size_bytes'],
        [{ ...good, earlier: undefined }, 'options.earlier'],
        [{ ...good, compression: { codec: 'zip', level: 0 } }, 'options.compression.codec'],
        [{ ...good, compression: { codec: 'zstd', level: 0 } }, 'options.compression.level'],
        [{ ...good, compression: { codec: 'zstd', level: 20 } }, 'options.compression.level'],
        [{ ...good, compression: { codec: 'lz4', level: 1 } }, 'options.compression.level'],
        [{ ...good, stall_timeout_ms: 0 }, 'options.stall_timeout_ms'],
        [{ ...good, base: undefined }, 'options.base'],
      ]
      for (const [options, field] of cases) {
        const error = thrown(() => session.moveDisk(options as MoveDiskOptions))
        expect(error).toMatchObject({ code: 'ARGUMENT_INVALID', metadata: { field } })
      }
      await expect(
        session.commit({ backup_id: 'b', base_backup_id: '', disks: [], body: 'x' } as never),
      ).rejects.toMatchObject({ code: 'ARGUMENT_INVALID', metadata: { field: 'options.body' } })
      await expect(openRepository(7 as never, false, null)).rejects.toMatchObject({
        code: 'ARGUMENT_INVALID',
      })
      await expect(openRepository('x', undefined as never, null)).rejects.toMatchObject({
        metadata: { field: 'readOnly' },
      })
      const secrets: [unknown, string][] = [
        [undefined, 'secret'],
        [{ kind: 'password', bytes: new Uint8Array(1) }, 'secret.kind'],
        [{ kind: 'key', bytes: 'text' }, 'secret.bytes'],
        [{ kind: 'key', bytes: new Uint8Array(2000) }, 'secret.bytes'],
      ]
      for (const [secret, field] of secrets) {
        for (const call of [
          openRepository('x', false, secret as never),
          createRepository('x', secret as never),
        ]) {
          await expect(call).rejects.toMatchObject({
            code: 'ARGUMENT_INVALID',
            metadata: { field },
          })
        }
      }
      expect(thrown(() => repository.restoreDisk({} as never, {} as never))).toMatchObject({
        code: 'ARGUMENT_INVALID',
      })
      await session.abort()
    })
  })

  it('are checked as a list of changed blocks before anything is read', async () => {
    await withDisk(async (repository, disk) => {
      const base = { root: null, size_bytes: size }
      for (const extents of [[0], [10, 5, 12, 5], [size - 1, 2], [5, 0]]) {
        const failed = backUp(repository, {
          ...optionsFor(disk),
          base,
          changed: { kind: 'extents', extents },
        })
        await expect(failed).rejects.toMatchObject({ code: 'CHANGED_BLOCKS_INVALID' })
      }
    })
  })

  it('may close the repository or abort the session while they are read', async () => {
    await withDisk(async (repository, disk) => {
      const session = await sessionOf(repository)
      const aborting = {
        ...optionsFor(disk),
        get compression() {
          void session.abort()
          return { codec: 'lz4' as const, level: 0 }
        },
      }
      expect(thrown(() => session.moveDisk(aborting))).toMatchObject({ code: 'ARGUMENT_INVALID' })
      const closing = {
        get root() {
          repository.close()
          return null
        },
        size_bytes: size,
      }
      const verification = repository.openVerification(0)
      expect(thrown(() => verification.verifyDisk(closing))).toMatchObject({
        code: 'ARGUMENT_INVALID',
        metadata: { field: 'repository' },
      })
    })
  })

  it('of a disk are refused once the session has committed', async () => {
    await withDisk(async (repository, disk) => {
      const session = await sessionOf(repository)
      await session.commit({
        backup_id: 'b',
        base_backup_id: '',
        disks: [],
        body: new Uint8Array(),
        lock_seconds: 0,
      })
      const late = session.moveDisk(optionsFor(disk))
      await expect(late.result).rejects.toMatchObject({ code: 'ARGUMENT_INVALID' })
      await session.abort()
    })
  })

  it('may be called on any receiver', async () => {
    await withDisk(async (repository, disk) => {
      const session = await sessionOf(repository)
      const task = session.moveDisk.call(repository as never, optionsFor(disk))
      const progress = task.progress.call({} as never)
      expect(progress.size_bytes).toBeGreaterThanOrEqual(0)
      task.cancel.call(undefined as never)
      await task.result.catch(() => undefined)
      await session.abort()
    })
  })
})

describe('a task', () => {
  it('shows progress while its promise is pending and leaves the event loop free', async () => {
    await withDisk(async (repository, disk) => {
      const session = await sessionOf(repository)
      const task = session.moveDisk(optionsFor(disk))
      const seen: number[] = []
      let pending = true
      const done = task.result.finally(() => {
        pending = false
      })
      while (pending) {
        seen.push(task.progress().position_bytes)
        await new Promise((resolve) => setTimeout(resolve, 1))
      }
      const moved = await done
      expect(moved.position_bytes).toBe(size)
      expect(new Set(seen).size).toBeGreaterThan(5)
      expect(seen).toEqual([...seen].sort((a, b) => a - b))
      await session.abort()
    })
  })

  it('of a session that aborts, or of a repository that closes, is cancelled', async () => {
    await withDisk(async (repository, disk) => {
      const session = await sessionOf(repository)
      const task = session.moveDisk(optionsFor(disk))
      expect(thrown(() => session.moveDisk(optionsFor(disk)))).toMatchObject({
        code: 'ARGUMENT_INVALID',
      })
      await expect(session.commit({} as never)).rejects.toMatchObject({ code: 'ARGUMENT_INVALID' })
      await session.abort()
      await expect(task.result).rejects.toMatchObject({ code: 'CANCELLED' })
      await session.abort()

      const other = await sessionOf(repository)
      const closed = other.moveDisk(optionsFor(disk))
      repository.close()
      await expect(closed.result).rejects.toMatchObject({ code: 'CANCELLED' })
      expect(thrown(() => repository.info())).toMatchObject({ code: 'ARGUMENT_INVALID' })
      expect(thrown(() => other.moveDisk(optionsFor(disk)))).toMatchObject({
        code: 'ARGUMENT_INVALID',
      })
      await other.abort()
      repository.close()
    })
  })

  it('that nobody holds any more does not end the process', async () => {
    await withDisk(async (_repository, disk, folder) => {
      const program = `
        import { openRepository } from ${JSON.stringify(index)}
        const repository = await openRepository(${JSON.stringify(join(folder, 'repository'))}, false, null)
        const session = await repository.openSession({
          vm_pseudonym: repository.vmPseudonym('vm'), point_id: 'p', incarnation: 1, number: 1,
        })
        session.moveDisk({ ...${JSON.stringify(optionsFor(disk))}, disk_id: 'lost' })
        session.moveDisk({ ...${JSON.stringify(optionsFor(join(folder, 'missing')))} })
        for (let i = 0; i < 20; i++) { globalThis.gc(); await new Promise((r) => setTimeout(r, 5)) }
        console.log('alive')
        process.exit(0)
      `
      const { stdout } = await promisify(execFile)(process.execPath, [
        ...['--expose-gc', '--conditions=@blockferry/source', '--input-type=module-typescript'],
        ...['--disable-warning=ExperimentalWarning', '-e', program],
      ])
      expect(stdout).toBe('alive\n')
    })
  })

  it('is stopped when its environment ends, at whatever moment', async () => {
    await withDisk(async (_repository, disk, folder) => {
      const program = `
        const { createRequire } = require('node:module')
        const { workerData, parentPort } = require('node:worker_threads')
        const native = createRequire(workerData.index)('../out/blockferry.node')
        native.openRepository(workerData.folder, false, null).then(async (repository) => {
          const session = await repository.openSession({
            vm_pseudonym: repository.vmPseudonym('vm'),
            point_id: 'p',
            incarnation: 1,
            number: workerData.number,
          })
          const moving = session.moveDisk(workerData.options)
          parentPort.postMessage('moving')
          for (;;) {
            for (let i = 0; i < 100; i++) moving.progress()
            const task = session.moveDisk({ ...workerData.options, disk_id: 'other' })
            task.cancel()
            await task.result.catch(() => undefined)
            try { session.moveDisk({}) } catch {}
          }
        })
        `
      for (let number = 1; number <= 10; number++) {
        const workerData = {
          index,
          number,
          folder: join(folder, 'repository'),
          options: optionsFor(disk),
        }
        const worker = new Worker(program, { eval: true, workerData })
        await new Promise((resolve) => worker.once('message', resolve))
        await new Promise((resolve) => setTimeout(resolve, number))
        expect(await worker.terminate()).toBe(1)
      }
    })
  })
})

describe('cutReaders', () => {
  // Reads nothing, so that the server's writes fill the buffers of both ends; then it is stopped.
  const reader = `
    require('node:net').connect(process.argv[1]).pause().on('connect', () => {
      process.stdout.write('connected', () => process.kill(process.pid, 'SIGSTOP'))
    })`

  it('ends the connection of a client that is stopped, and no other', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'socket')
      const server = createServer().listen(path)
      await once(server, 'listening')
      const other = createServer((socket) => socket.pipe(socket)).listen(`${path}.other`)
      await once(other, 'listening')
      const untouched = connect(`${path}.other`)
      await once(untouched, 'connect')

      const accepted = once(server, 'connection')
      const child = spawn(process.execPath, ['-e', reader, path])
      try {
        const [socket] = (await accepted) as [Socket]
        await once(child.stdout, 'data')
        const ended = new Promise((resolve) =>
          socket.once('error', () => {}).once('close', resolve),
        )
        socket.write(noise('readers', 4 * mib))
        expect(await cutReaders(path)).toEqual([{ pid: child.pid, failure: null }])
        await ended
        expect(await cutReaders(path)).toEqual([])

        const echoed = once(untouched, 'data')
        untouched.write('still here')
        expect(String((await echoed)[0])).toBe('still here')
      } finally {
        child.kill('SIGKILL')
        untouched.destroy()
        server.close()
        other.close()
      }
    })
  })

  it('finds nobody on a socket that nobody uses, and refuses what is no path', async () => {
    expect(await cutReaders('/tmp/blockferry-no-such-socket')).toEqual([])
    for (const path of ['', '/'.padEnd(200, 'x')]) {
      await expect(cutReaders(path)).rejects.toMatchObject({ code: 'ARGUMENT_INVALID' })
    }
  })

  // Only root has rights that another process of root lacks.
  it.runIf(process.getuid?.() === 0)('says so when the client may not be traced', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'socket')
      const server = createServer((socket) => socket.resume()).listen(path)
      await once(server, 'listening')
      const client = connect(path)
      await once(client, 'connect')
      const program = `
        import { cutReaders } from ${JSON.stringify(index)}
        console.log(JSON.stringify(await cutReaders(${JSON.stringify(path)})))`
      const { stdout } = await promisify(execFile)('setpriv', [
        ...['--bounding-set=-sys_ptrace', '--inh-caps=-sys_ptrace', process.execPath],
        ...['--conditions=@blockferry/source', '--disable-warning=ExperimentalWarning'],
        ...['--input-type=module-typescript', '-e', program],
      ])
      expect(JSON.parse(stdout)).toEqual([{ pid: 0, failure: 'its files cannot be seen' }])
      client.destroy()
      server.close()
    })
  })
})

// Node exports the functions of its own zstd: the addon has to have those that it was built with.
const zstdOfDebian = (): string =>
  execFileSync('pkg-config', ['--modversion', 'libzstd'], { encoding: 'utf8' }).trim()

describe('versions', () => {
  it('are those of the libraries that are loaded', () => {
    expect(versions()).toEqual({
      node_api: 9,
      libnbd: expect.stringMatching(/^1\.\d+\.\d+/),
      lz4: expect.stringMatching(/^1\.\d+\.\d+/),
      zstd: zstdOfDebian(),
    })
  })
})
