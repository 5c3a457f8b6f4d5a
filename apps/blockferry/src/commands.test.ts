import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sleep } from '@blockferry/core'
import { BackupError } from '@blockferry/errors'
import { backup, catalog, durationFromMs, move, schedule, snapshot } from '@blockferry/proto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  type Answers,
  aBackup,
  aDisk,
  aRun,
  type Doubles,
  fakeTerminal,
  serveDoubles,
} from './service_doubles.ts'

const answers: Answers = {}
let doubles: Doubles
let folder: string

beforeEach(async () => {
  folder = mkdtempSync('/tmp/blockferry-cli-files-')
  doubles = await serveDoubles(answers)
})
afterEach(async () => {
  for (const method of Object.keys(answers)) delete answers[method]
  await doubles[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true })
})

const requestOf = (method: string): unknown =>
  doubles.asked.find((each) => each.method === method)?.request

const { SUCCEEDED, FAILED, CANCELLED, MOVING } = schedule.Run_State

/** A run that is started, moves, and ends in `end`. */
function answerWithRun(method: string, end: Partial<schedule.Run>): void {
  answers[method] = () => ({ run: aRun() })
  answers.watchRun = async function* () {
    yield { run: aRun({ state: MOVING, disks: [aDisk({ readBytes: 10n })] }) }
    yield { run: aRun(end) }
  }
}

describe('backup', () => {
  it('starts a backup of a VM, shows progress and says what it made', async () => {
    answerWithRun('startBackup', {
      state: SUCCEEDED,
      disks: [aDisk({ readBytes: 2_000_000n, storedBytes: 1024n, done: true })],
      startTime: new Date(0),
      endTime: new Date(1000),
    })
    const { code, out, err } = await doubles.run('backup', 'web-1', '--to', 'nightly', '--full')
    expect(requestOf('startBackup')).toMatchObject({
      vm: 'web-1',
      images: [],
      repository: 'repositories/nightly',
      level: backup.Level.FULL,
      skipQuiesce: false,
      baseBackup: '',
      requestId: expect.stringMatching(/^[0-9a-f]{16}$/),
    })
    expect(code).toBe(0)
    expect(out).toContain('Backed up web-1 as 20261123-071500-4f2a9c in repository nightly.')
    expect(out).toContain('read 1.9 MiB of 977 KiB, stored 1.0 KiB, 1.0 s, 2.0 MB/s')
    expect(err).toContain('web-1  moving')
  })

  it('prints nothing but the name when asked to be quiet', async () => {
    answerWithRun('startBackup', { state: SUCCEEDED })
    const { out, err } = await doubles.run('backup', 'web-1', '-q')
    expect(out).toBe('repositories/nightly/backups/20261123-071500-4f2a9c\n')
    expect(err).toBe('')
  })

  it('ends in 3 and names the disks that were left out', async () => {
    const uncovered = { disk: 'vdb', location: '', sizeBytes: 0n, reason: 'X', message: 'is raw' }
    answerWithRun('startBackup', { state: SUCCEEDED, uncoveredDisks: [uncovered] })
    const { code, err } = await doubles.run('backup', 'web-1')
    expect(code).toBe(3)
    expect(err).toContain('left out: vdb: is raw')
  })

  it('ends with the reason of a failed run, on standard error', async () => {
    const error = { reason: 'REPOSITORY_FULL', message: 'write a pack: no space', metadata: {} }
    answerWithRun('startBackup', { state: FAILED, error })
    const { code, out, err } = await doubles.run('backup', 'web-1', '-q')
    expect(code).toBe(1)
    expect(out).toBe('')
    expect(err).toBe('blockferry: write a pack: no space\n  reason: REPOSITORY_FULL\n')
  })

  it('returns at once with the name of the run when detached', async () => {
    answers.startBackup = () => ({ run: aRun() })
    const { code, out } = await doubles.run('backup', 'start', 'web-1', '--detach')
    expect([code, out]).toEqual([0, '20261123-071500-4f2a9c\n'])
    expect(requestOf('watchRun')).toBeUndefined()
  })

  it('says that a VM is busy, and ends in 5', async () => {
    answers.startBackup = () => {
      throw new BackupError('VM_BUSY', 'back up web-1: runs/1 does already', { owner: 'runs/1' })
    }
    const { code, err } = await doubles.run('backup', 'web-1', '--output', 'json')
    expect(code).toBe(5)
    expect(JSON.parse(err)).toEqual({
      error: {
        reason: 'VM_BUSY',
        message: 'back up web-1: runs/1 does already',
        metadata: { owner: 'runs/1' },
      },
    })
  })

  it('asks the service to cancel on Ctrl-C and waits for the end', async () => {
    const terminal = fakeTerminal()
    const cancelled = Promise.withResolvers<void>()
    answers.startBackup = () => ({ run: aRun() })
    answers.cancelRun = () => {
      cancelled.resolve()
      return { run: aRun({ cancelRequested: true }) }
    }
    answers.watchRun = async function* () {
      yield { run: aRun({ state: MOVING }) }
      terminal.interrupt()
      await cancelled.promise
      yield { run: aRun({ state: CANCELLED }) }
    }
    const { code, err } = await doubles.runOn(terminal, 'backup', 'web-1')
    expect(code).toBe(130)
    expect(requestOf('cancelRun')).toEqual({ name: 'runs/20261123-071500-4f2a9c' })
    expect(err).toContain('reason: CANCELLED')
  })

  it('leaves on the second Ctrl-C', async () => {
    const terminal = fakeTerminal()
    answers.startBackup = () => ({ run: aRun() })
    answers.cancelRun = () => ({ run: aRun({ cancelRequested: true }) })
    answers.watchRun = async function* (_: never, signal: AbortSignal) {
      yield { run: aRun({ state: MOVING }) }
      terminal.interrupt()
      terminal.interrupt()
      await sleep(30_000, signal).catch(() => {})
    }
    const { code, err } = await doubles.runOn(terminal, 'backup', 'web-1')
    expect(code).toBe(130)
    expect(err).toContain('left before the end')
  })

  it('goes on watching after the service went away for a moment', async () => {
    let watchCount = 0
    answers.startBackup = () => ({ run: aRun() })
    answers.watchRun = async function* () {
      watchCount++
      yield { run: aRun({ state: watchCount === 1 ? MOVING : SUCCEEDED }) }
    }
    expect((await doubles.run('backup', 'web-1')).code).toBe(0)
    expect(watchCount).toBe(2)
  })
})

describe('backup of images', () => {
  const image = (name: string, size: number) => {
    const path = join(folder, name)
    writeFileSync(path, Buffer.alloc(size))
    return path
  }
  const list = (content: unknown) => {
    const path = join(folder, 'changed.json')
    writeFileSync(path, JSON.stringify(content))
    return path
  }

  it('sends absolute paths, the changed blocks and the id of the base', async () => {
    answerWithRun('startBackup', { state: SUCCEEDED })
    answers.listBackups = () => ({ backups: [aBackup()], nextPageToken: '' })
    const path = image('db.raw', 8192)
    const changed = list({ grain: 4096, size: 8192, extents: [[4096, 4096]] })
    const options = ['--vm', 'db', '--changed-blocks', changed, '--base', 'latest:db']
    expect((await doubles.run('backup', path, ...options)).code).toBe(0)
    expect(requestOf('listBackups')).toMatchObject({ vm: 'db' })
    expect(requestOf('startBackup')).toMatchObject({
      vm: 'db',
      images: [path],
      baseBackup: '20261123-071500-4f2a9c',
      suppliedChanges: [{ disk: '', extents: [{ byteOffset: 4096n, sizeBytes: 4096n }] }],
    })
  })

  it.each([
    ['of another size', { size: 4096, extents: [] }, 'size'],
    [
      'out of order',
      {
        extents: [
          [4096, 1],
          [0, 1],
        ],
      },
      'extents[1]',
    ],
  ])('refuses a list %s before anything starts', async (_, content, field) => {
    const options = ['--vm', 'db', '--changed-blocks', list(content), '--base', 'x', '-o', 'json']
    const { code, err } = await doubles.run('backup', image('db.raw', 8192), ...options)
    expect(code).toBe(2)
    expect(JSON.parse(err).error).toMatchObject({
      reason: 'CHANGED_BLOCKS_INVALID',
      metadata: { field },
    })
    expect(doubles.asked).toEqual([])
  })

  it.each([
    [['/no/such/image', '--vm', 'db'], 4, 'there is no such file'],
    [['/no/such/image'], 2, 'neither a VM nor a file'],
    [['a', 'b'], 2, 'add --vm NAME'],
    [[], 2, 'name a VM'],
    [['web', '--changed-blocks', 'x'], 2, '--base together'],
  ])('refuses %j', async (args, expected, text) => {
    const { code, err } = await doubles.run('backup', ...args)
    expect(code).toBe(expected)
    expect(err).toContain(text)
    expect(doubles.asked).toEqual([])
  })

  it('takes a resource name of a VM for a VM', async () => {
    answerWithRun('startBackup', { state: SUCCEEDED })
    await doubles.run('backup', 'hosts/lab/vms/6f1c')
    expect(requestOf('startBackup')).toMatchObject({ vm: 'hosts/lab/vms/6f1c', images: [] })
  })
})

describe('restore', () => {
  it('restores the newest backup of a VM to an absolute folder', async () => {
    answers.listBackups = () => ({ backups: [aBackup()], nextPageToken: '' })
    answerWithRun('startRestore', {
      kind: schedule.Run_Kind.RESTORE,
      state: SUCCEEDED,
      disks: [aDisk({ targetPath: '/srv/x/vda.raw' })],
      startScript: '/srv/x/start.sh',
    })
    const args = ['latest:web-1', '--to', folder, '--disk', 'vda', '--format', 'raw']
    const { code, out } = await doubles.run('restore', ...args)
    expect(code).toBe(0)
    expect(requestOf('startRestore')).toMatchObject({
      backup: 'repositories/nightly/backups/20261123-071500-4f2a9c',
      disks: ['vda'],
      targetFolder: folder,
      format: move.ImageFormat.RAW,
      inPlace: false,
      confirmInPlace: false,
    })
    expect(out).toContain('vda: /srv/x/vda.raw')
    expect(out).toContain('start it with: /srv/x/start.sh')
  })

  it.each([
    [['x'], 'either --to DIR or --in-place'],
    [['x', '--to', '/tmp/y', '--in-place', '--yes'], 'either --to DIR or --in-place'],
    [['x', '--in-place'], 'add --yes'],
    [['x', '--to', '/tmp/y', '--format', 'qed'], 'one of raw, qcow2'],
    [['x', '--in-place', '--differential'], 'nothing is kept of it; add --yes'],
    [['x', '--to', '/tmp/y', '--differential'], 'add --in-place'],
  ])('refuses %j without asking a service', async (args, text) => {
    const { code, err } = await doubles.run('restore', ...args)
    expect(code).toBe(2)
    expect(err).toContain(text)
    expect(doubles.asked).toEqual([])
  })

  it('writes only what differs when told so, and says how much that was', async () => {
    answers.listBackups = () => ({ backups: [aBackup()], nextPageToken: '' })
    const disk = { targetPath: '/vms/a.qcow2', sizeBytes: 10n << 30n, storedBytes: 3n << 20n }
    answerWithRun('startRestore', {
      kind: schedule.Run_Kind.RESTORE,
      state: SUCCEEDED,
      disks: [aDisk({ ...disk, comparedBytes: 4n << 30n })],
    })
    const args = ['restore', 'latest:web-1', '--in-place', '--differential', '--yes']
    const { code, out } = await doubles.run(...args)
    expect(code).toBe(0)
    expect(requestOf('startRestore')).toMatchObject({
      ...{ inPlace: true, confirmInPlace: true, differential: true, targetFolder: '' },
    })
    expect(out).toContain('compared 4.0 GiB, wrote 3.0 MiB of 10.0 GiB')
    const json = JSON.parse((await doubles.run(...args, '--output', 'json')).out)
    expect(json.disks[0]).toMatchObject({ compared_bytes: 4 * 2 ** 30, stored_bytes: 3 * 2 ** 20 })
  })

  it('finds a backup by its id, over pages, and one of a VM by --backup', async () => {
    answers.listBackups = ({ pageToken }: { pageToken: string }) =>
      pageToken === ''
        ? { backups: [aBackup({ name: 'repositories/a/backups/other' })], nextPageToken: '1' }
        : { backups: [aBackup()], nextPageToken: '' }
    answerWithRun('startRestore', { state: SUCCEEDED })
    const id = '20261123-071500-4f2a9c'
    expect((await doubles.run('restore', id, '--to', folder)).code).toBe(0)
    expect((await doubles.run('restore', 'web-1', '--backup', id, '--to', folder)).code).toBe(0)
    const missing = await doubles.run('restore', 'web-1', '--to', folder)
    expect(missing.code).toBe(4)
    expect(missing.err).toContain('latest:VM')
  })
})

describe('listings', () => {
  const hostile = 'x\n\x1b[2Jname-that-goes-on-and-on-and-on'

  it('shows backups in a table of 80 columns that no name breaks', async () => {
    const disk = backup.BackupDisk.fromPartial({ sizeBytes: 10n << 30n, storedBytes: 1n << 20n })
    answers.listBackups = () => ({
      backups: [aBackup({ vmDisplayName: hostile, disks: [disk], pointTime: new Date(0) })],
      nextPageToken: '',
    })
    const { out } = await doubles.run('backups')
    const lines = out.trimEnd().split('\n')
    expect(lines).toHaveLength(2)
    expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(80)
    expect(out).not.toContain('\x1b')
    expect(out).toContain('10.0 GiB')
  })

  it.each([
    [['backups']],
    [['backup', 'list']],
    [['snapshots']],
    [['points']],
    [['point', 'list']],
  ])('%j lists backups as an array of JSON, names exact', async (words) => {
    answers.listBackups = () => ({
      backups: [aBackup({ vmDisplayName: hostile })],
      nextPageToken: '',
    })
    const { code, out } = await doubles.run(...words, '--vm', 'web-1', '--output', 'json')
    expect(code).toBe(0)
    expect(JSON.parse(out)[0].vm_display_name).toBe(hostile)
    expect(requestOf('listBackups')).toMatchObject({ vm: 'web-1' })
  })

  it('reads all pages of hosts and says when there are none', async () => {
    const host = { name: 'hosts/lab', platform: { $case: 'folder', value: { folder: '/srv' } } }
    answers.listHosts = ({ pageToken }: { pageToken: string }) => ({
      hosts: [host],
      nextPageToken: pageToken === '' ? '1' : '',
    })
    const { out } = await doubles.run('host', 'list', '--output', 'json')
    expect(JSON.parse(out)).toHaveLength(2)
    expect(JSON.parse(out)[0]).toMatchObject({ name: 'hosts/lab', folder: { folder: '/srv' } })
    answers.listHosts = () => ({ hosts: [], nextPageToken: '' })
    const none = await doubles.run('host', 'list')
    expect([none.out, none.code]).toEqual(['', 0])
    expect(none.err).toContain('host add')
  })

  it('lists VMs and says which host is silent', async () => {
    const vm = snapshot.Vm.fromPartial({
      name: 'hosts/lab/vms/6f1c',
      displayName: 'web-1',
      state: snapshot.VmState.RUNNING,
    })
    answers.listVms = () => ({
      vms: [vm],
      nextPageToken: '',
      unreachableHosts: [{ host: 'hosts/dead', reason: 'HOST_UNREACHABLE', message: 'no answer' }],
    })
    const { out, err } = await doubles.run('vms')
    expect(out).toMatch(/web-1\s+lab\s+running/)
    expect(err).toContain('dead does not answer: no answer (HOST_UNREACHABLE)')
  })

  it('stops at --limit, and says so when nobody asked for it', async () => {
    answers.listRuns = ({ pageSize }: { pageSize: number }) => ({
      runs: Array.from({ length: pageSize }, () => aRun()),
      nextPageToken: 'more',
    })
    const { out, err } = await doubles.run('runs', '--active', '--limit', '3')
    expect(out.trimEnd().split('\n')).toHaveLength(4)
    expect(err).toBe('')
    expect(requestOf('listRuns')).toMatchObject({ activeOnly: true, pageSize: 3 })
    expect((await doubles.run('runs')).err).toContain('Only the first 100')
  })
})

describe('what is set up', () => {
  it('adds hosts of both kinds with absolute paths', async () => {
    answers.createHost = ({ host }: { host: snapshot.Host }) => ({ host })
    mkdirSync(join(folder, 'vms'))
    const args = ['--qemu', join(folder, 'vms'), '--monitor', '/run/x.qmp', '--fleece', folder]
    expect((await doubles.run('host', 'add', 'lab', ...args)).code).toBe(0)
    expect(requestOf('createHost')).toMatchObject({
      hostId: 'lab',
      host: {
        platform: {
          $case: 'qemu',
          value: {
            monitorFolder: join(folder, 'vms'),
            monitorSockets: ['/run/x.qmp'],
            fleeceFolder: folder,
          },
        },
      },
    })
    expect((await doubles.run('host', 'add', 'both', '--qemu', '/a', '--folder', '/b')).code).toBe(
      2,
    )
  })

  it('creates and adopts repositories', async () => {
    answers.createRepository = () => ({
      repository: {
        name: 'repositories/nightly',
        folder: '/srv/b',
        repositoryId: 'ab',
        incarnation: 1n,
        storedBytes: 0n,
        backupCount: 0n,
      },
    })
    const created = await doubles.run('repository', 'create', 'nightly', '/srv/b', '-o', 'json')
    expect(JSON.parse(created.out)).toMatchObject({ folder: '/srv/b', stored_bytes: 0 })
    await doubles.run('repo', 'adopt', 'nightly', '/srv/b')
    const adopted = doubles.asked.map(({ request }) => (request as { adopt: boolean }).adopt)
    expect(adopted).toEqual([false, true])
  })

  it('changes what is done to a repository by itself, and leaves what is not named', async () => {
    const before = catalog.Repository.fromPartial({
      name: 'repositories/nightly',
      maintenance: {
        collectRepeatDuration: durationFromMs(60_000),
        undoDuration: durationFromMs(1),
      },
    })
    answers.listRepositories = () => ({ repositories: [before], nextPageToken: '' })
    answers.updateRepository = (request) => ({
      repository: { ...before, ...(request as catalog.UpdateRepositoryRequest) },
    })
    const update = ['repository', 'update', 'nightly', '--collect-every', 'never']
    const { out } = await doubles.run(...update, '--verify-every', '30d')
    expect(doubles.asked.at(-1)?.request).toMatchObject({
      name: 'repositories/nightly',
      maintenance: {
        collectRepeatDuration: undefined,
        undoDuration: durationFromMs(1),
        verifyRepeatDuration: durationFromMs(30 * 86_400_000),
      },
    })
    expect(out).toMatch(/collected: +by hand\nverified: +every 30d/)
    expect((await doubles.run(...update.slice(0, -1), '5s')).code).toBe(2)
  })

  it('shows the time of a repository, and believes the clock only when told to', async () => {
    answers.advanceTime = () => ({
      repositoryTime: new Date(0),
      aheadDuration: durationFromMs(90_000_000),
    })
    const { out } = await doubles.run('repository', 'clock', 'nightly')
    expect(out).toContain('ahead by 1d 1h')
    await doubles.run('repository', 'clock', 'nightly', '--confirm')
    const asked = doubles.asked.map(({ request }) => request)
    const name = 'repositories/nightly'
    expect(asked).toEqual([
      { name, confirmClock: false },
      { name, confirmClock: true },
    ])
  })

  it('tells the recovery key of an encrypted repository once, also to who asked for names', async () => {
    const repository = catalog.Repository.fromPartial({
      ...{ name: 'repositories/nightly', folder: '/srv/b', encrypted: true },
    })
    answers.createRepository = () => ({ repository, recoveryKey: 'bfkey-0000' })
    const args = ['repository', 'create', 'nightly', '/srv/b', '--passphrase-file', '/etc/secret']
    const shown = await doubles.run(...args)
    expect(requestOf('createRepository')).toMatchObject({ passphraseFile: '/etc/secret' })
    expect(shown.out).toContain('bfkey-0000')
    expect(shown.err).toContain('nobody can read the backups')
    const json = await doubles.run(...args, '-o', 'json')
    expect(JSON.parse(json.out)).toMatchObject({ encrypted: true, recovery_key: 'bfkey-0000' })
    const quiet = await doubles.run(...args, '--quiet')
    expect(quiet.out).toBe('repositories/nightly\n')
    expect(quiet.err).toContain('bfkey-0000')
  })

  it('lists, adds and removes what opens a repository', async () => {
    const keySlots = [
      { slotId: '00000000000000aa', kind: 1, label: 'for \u202eAda' },
      { slotId: '00000000000000bb', kind: 2, label: 'recovery key' },
    ]
    answers.listKeySlots = () => ({ keySlots })
    answers.addKeySlot = () => ({ keySlot: keySlots[1], recoveryKey: 'bfkey-1111' })
    answers.removeKeySlot = () => ({})
    answers.unlockRepository = () => ({})
    const listed = await doubles.run('repository', 'key', 'list', 'nightly')
    expect(listed.out).toContain('00000000000000aa  passphrase  for \\u{202e}Ada')
    const json = await doubles.run('repository', 'key', 'list', 'nightly', '-o', 'json')
    expect(JSON.parse(json.out)).toMatchObject([{ kind: 'passphrase' }, { kind: 'key' }])
    const added = await doubles.run('repository', 'key', 'add', 'nightly', '--label', 'safe')
    expect(requestOf('addKeySlot')).toEqual({
      ...{ name: 'repositories/nightly', passphraseFile: '', label: 'safe' },
    })
    expect(added.out).toContain('bfkey-1111')
    const remove = ['repository', 'key', 'remove', 'nightly', '00000000000000aa']
    const unsure = await doubles.run(...remove)
    expect(unsure).toMatchObject({ code: 2, err: expect.stringContaining('add --yes') })
    expect(doubles.asked.some(({ method }) => method === 'removeKeySlot')).toBe(false)
    expect((await doubles.run(...remove, '--yes')).code).toBe(0)
    expect(requestOf('removeKeySlot')).toMatchObject({ slotId: '00000000000000aa' })
    const unlock = ['repository', 'unlock', 'nightly', '--passphrase-file', 'key']
    expect((await doubles.run(...unlock)).code).toBe(0)
    expect(requestOf('unlockRepository')).toMatchObject({
      passphraseFile: join(process.cwd(), 'key'),
    })
    expect((await doubles.run('repository', 'unlock', 'nightly')).code).toBe(2)
  })

  it('changes only what is named of a policy', async () => {
    const policy = schedule.Policy.fromPartial({
      name: 'policies/web',
      vms: ['web-1'],
      repository: 'repositories/nightly',
      skipQuiesce: true,
    })
    answers.getPolicy = () => ({ policy })
    answers.updatePolicy = (request: { policy: schedule.Policy }) => request
    const { code, out } = await doubles.run('policy', 'update', 'web', '--every', '12h', '--pause')
    expect(code).toBe(0)
    expect(requestOf('updatePolicy')).toMatchObject({
      policy: {
        vms: ['web-1'],
        skipQuiesce: true,
        paused: true,
        repeatDuration: { seconds: 43200n },
      },
    })
    expect(out).toContain('12 h 00 min (paused)')
  })

  it('runs a policy and ends with the worst of its runs', async () => {
    const names = ['runs/1', 'runs/2']
    answers.startPolicy = () => ({ runs: names.map((name) => aRun({ name })) })
    answers.watchRun = async function* ({ name }: { name: string }) {
      const error = { reason: 'VM_BUSY', message: 'busy', metadata: {} }
      yield {
        run: name === 'runs/1' ? aRun({ name, state: FAILED, error }) : aRun({ state: SUCCEEDED }),
      }
    }
    const { code, out } = await doubles.run('policy', 'run', 'web', '--output', 'json', '-q')
    expect(code).toBe(5)
    expect(JSON.parse(out).map(({ state }: { state: string }) => state)).toEqual([
      'failed',
      'succeeded',
    ])
  })

  it('reports damaged manifests of a rebuild and ends in 1', async () => {
    answers.rebuildCatalog = () => ({
      backupCount: 2n,
      removedCount: 1n,
      damagedManifests: [{ path: 'manifests/x', reason: 'MANIFEST_CORRUPT', message: 'cut off' }],
    })
    const { code, out, err } = await doubles.run('catalog', 'rebuild', 'nightly')
    expect(code).toBe(1)
    expect(requestOf('rebuildCatalog')).toEqual({ name: 'repositories/nightly' })
    expect(out).toContain('backups:            2')
    expect(err).toContain('manifests/x')
  })
})

describe('doctor', () => {
  const repository = catalog.Repository.fromPartial({ name: 'repositories/nightly' })
  const healthy: Answers = {
    listPolicies: () => ({ policies: [], nextPageToken: '' }),
    listHosts: () => ({ hosts: [{ name: 'hosts/lab' }], nextPageToken: '' }),
    listVms: () => ({ vms: [], nextPageToken: '', unreachableHosts: [] }),
    listRepositories: () => ({ repositories: [repository], nextPageToken: '' }),
    getRepository: () => ({ repository }),
  }

  it('finds everything well', async () => {
    Object.assign(answers, healthy)
    const { code, out } = await doubles.run('doctor')
    expect(out).toMatch(/host lab +ok/)
    expect(out).toMatch(/repository nightly +ok/)
    expect(code).toBe(0)
  })

  it('names a host and a repository that do not answer, and what to do', async () => {
    const silent = { host: 'hosts/lab', reason: 'HOST_DENIED', message: 'let this user read it' }
    Object.assign(answers, healthy, {
      listVms: () => ({ vms: [], nextPageToken: '', unreachableHosts: [silent] }),
      getRepository: () => {
        throw new BackupError('REPOSITORY_MISSING', 'read /srv/b: mount it', {})
      },
    })
    const { code, out, err } = await doubles.run('doctor')
    expect(out).toMatch(/host lab +bad +HOST_DENIED/)
    expect(err).toContain('host lab: let this user read it')
    expect(err).toContain('repository nightly: read /srv/b: mount it')
    expect(code).toBe(1)
  })

  it('ends in 6 when the services do not run', async () => {
    const { code, out } = await doubles.run('doctor', '--state', join(folder, 'none'), '-o', 'json')
    const silent = JSON.parse(out).filter((check: { state: string }) => check.state === 'bad')
    expect(silent.map(({ what }: { what: string }) => what)).toEqual([
      'service schedule',
      'service snapshot',
      'service catalog',
      'service move',
    ])
    expect(code).toBe(6)
  })
})

describe('the command line', () => {
  it.each([
    [['bakup', 'web-1'], 'Did you mean'],
    [['backup', 'x', '--lvel', 'full'], '--level'],
    [['backups', '--output', 'xml'], 'json'],
    [['runs', '--limit', '0'], 'from 1'],
    [['policy', 'create', 'x', '--every', '10s'], 'at least 1m'],
    [['backup', 'x', '--compression', 'zstd:20'], 'zstd:19'],
  ])('refuses %j with a hint, in 2', async (args, hint) => {
    const { code, err } = await doubles.run(...args)
    expect(code).toBe(2)
    expect(err).toMatch(/^blockferry: /)
    expect(err).toContain(hint)
  })

  it('prints errors of usage as JSON, too', async () => {
    const { code, err } = await doubles.run('backups', '--nope', '--output=json')
    expect(code).toBe(2)
    expect(JSON.parse(err).error.reason).toBe('ARGUMENT_INVALID')
  })

  it('explains every command with an example, within 80 columns', async () => {
    const words = [
      'backup',
      'backup list',
      'restore',
      'verify',
      'backups',
      'runs',
      'run watch',
      'cancel',
      'up',
      'host add',
      'vm show',
      'repository create',
      'policy create',
      'catalog rebuild',
      'doctor',
      'service schedule',
      'service postgres',
    ]
    for (const each of words) {
      const { code, out } = await doubles.run(...each.split(' '), '--help')
      expect(code, each).toBe(0)
      expect(out, each).toContain(`blockferry ${each.split(' ')[0]}`)
      expect(out, each).toContain('Examples:')
      for (const line of out.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80)
    }
    const { out } = await doubles.run('--help')
    for (const line of out.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80)
  })

  it('ends in 6 and says what to start when no service answers', async () => {
    const state = join(folder, 'nobody')
    const { code, err } = await doubles.run('runs', '--state', state)
    expect(code).toBe(6)
    expect(err).toContain(`unix:${state}/run/schedule.sock`)
    expect(err).toContain('blockferry up')
  })
})
