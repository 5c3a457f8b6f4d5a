import { chmod, cp, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sleep } from '@blockferry/core'
import type { BackupError } from '@blockferry/errors'
import { keySlot, move } from '@blockferry/proto'
import { connect, type RpcClient } from '@blockferry/rpc'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { moveConfig, startMove } from './index.ts'
import { isIdentical, MoveStand } from './move_stand.ts'

const mib = 1024 * 1024
const { PASSPHRASE } = keySlot.KeySlot_Kind

let stand: MoveStand
let folder: string
let recoveryKey: string
let image: string

async function secretFile(name: string, line: string): Promise<string> {
  const path = stand.path(name)
  await writeFile(path, `${line}\n`, { mode: 0o600 })
  return path
}

async function backUp(): Promise<string> {
  const request = stand.request([
    {
      disk: 'vda',
      sizeBytes: BigInt(4 * mib),
      format: 'raw',
      location: image,
      address: { $case: 'rawPath', value: image },
    },
  ])
  return (await stand.backup({ ...request, folder })).name
}

async function restored(backup: string, name: string): Promise<boolean> {
  const targetFolder = stand.path(name)
  await mkdir(targetFolder, { recursive: true })
  const path = join(targetFolder, 'out.raw')
  const disk = { disk: 'vda', targetPath: path, format: move.ImageFormat.RAW }
  const session = await stand.restore(backup, [disk], { folder })
  expect(session.errorMessage).toBe('')
  return await isIdentical(image, path)
}

/** With the next token that the repository gives. */
async function collect(calls: RpcClient<move.MoveServiceServer>): Promise<void> {
  const { incarnation } = await calls.drawIncarnation({ folder })
  const request = { sessionId: `collect-${incarnation}`, token: { incarnation, number: 1n } }
  const started = await calls.startCollect(
    move.StartCollectRequest.fromPartial({ folder, ...request }),
  )
  let session = started.session
  while (session && session.state !== move.Session_State.DONE) {
    expect(session.errorMessage).toBe('')
    await sleep(20)
    session = (await calls.getSession({ name: session.name })).session
  }
  expect(session?.collectReport).toMatchObject({ droppedBackups: [], dryRun: false })
  expect(session?.collectReport?.liveBytes).toBeGreaterThan(0n)
}

const failureOf = (call: Promise<unknown>): Promise<BackupError> =>
  call.then(
    () => {
      throw new Error('the call succeeded')
    },
    (thrown) => thrown,
  )

const slots = async () => (await stand.calls.listKeySlots({ folder })).keySlots

const own = () => expect.stringContaining('installation on')

beforeAll(async () => {
  stand = await MoveStand.start()
  folder = stand.path('encrypted')
  image = await stand.raw('image.raw', 4 * mib, [
    { offset: 0, size: mib, seed: 1 },
    { offset: 3 * mib, size: 1000, seed: 2 },
  ])
  const passphraseFile = await secretFile('passphrase', 'correct horse')
  const created = await stand.calls.createRepository({ folder, passphraseFile })
  expect(created.repository?.encrypted).toBe(true)
  recoveryKey = created.recoveryKey
})
afterAll(async () => {
  await stand[Symbol.asyncDispose]()
})

describe('an encrypted repository', () => {
  it('needs nobody from night to night', async () => {
    const labels = (await slots()).map(({ label }) => label).sort()
    expect(labels).toEqual(['created with the repository', own(), 'recovery key'])
    const first = await backUp()
    await stand.raw('image.raw', 4 * mib, [{ offset: 5000, size: 100, seed: 3 }])
    await stand.restart()
    const second = await backUp()
    expect(first).not.toBe(second)
    expect(await restored(second, 'second')).toBe(true)
    const { repository } = await stand.calls.inspectRepository({ folder })
    expect(repository?.encrypted).toBe(true)
  })

  it('keeps the key of the installation from others', async () => {
    const keys = stand.path('keys')
    expect((await stat(keys)).mode & 0o777).toBe(0o700)
    const [name = '', ...others] = await readdir(keys)
    expect(others).toEqual([])
    expect((await stat(join(keys, name))).mode & 0o777).toBe(0o600)
    expect((await readFile(join(keys, name))).length).toBe(32)
  })

  it('is unlocked by the recovery key after the machine was lost', async () => {
    const address = `unix:${stand.folder}/other.sock`
    const places = { runFolder: stand.path('other-run'), keyFolder: stand.path('other-keys') }
    await using _ = await startMove(moveConfig({ address, logLevel: 'silent', ...places }))
    using other: RpcClient<move.MoveServiceServer> = connect(
      'move',
      move.MoveServiceService,
      address,
    )
    const list = () => other.listManifests(move.ListManifestsRequest.create({ folder }))
    expect((await failureOf(list())).reason).toBe('KEY_MISSING')
    const seen = { encrypted: true, locked: true }
    expect((await other.inspectRepository({ folder })).repository).toMatchObject(seen)
    await collect(other)
    const wrong = await secretFile('wrong', 'wrong horse')
    const refused = await failureOf(other.unlockRepository({ folder, passphraseFile: wrong }))
    expect(refused.reason).toBe('KEY_WRONG')
    expect((await failureOf(list())).reason).toBe('KEY_MISSING')
    const passphraseFile = await secretFile('recovery', recoveryKey)
    await other.unlockRepository({ folder, passphraseFile })
    await other.unlockRepository({ folder, passphraseFile })
    const ids = (await list()).backups
    const { repository } = await other.inspectRepository({ folder })
    expect(repository).toMatchObject({ encrypted: true, locked: false })
    expect(ids).toHaveLength(2)
    expect(await slots()).toHaveLength(4)
  })

  it('gets and loses secrets without its data being touched', async () => {
    const packs = async () => (await readdir(join(folder, 'packs'), { recursive: true })).sort()
    const before = await packs()
    const passphraseFile = await secretFile('another', 'another passphrase')
    const added = await stand.calls.addKeySlot({ folder, passphraseFile, label: 'for Ada' })
    expect(added).toMatchObject({
      keySlot: { kind: PASSPHRASE, label: 'for Ada' },
      recoveryKey: '',
    })
    const drawn = await stand.calls.addKeySlot({ folder, passphraseFile: '', label: '' })
    expect(drawn.recoveryKey).toMatch(/^bfkey-/)
    expect(drawn.recoveryKey).not.toBe(recoveryKey)
    const slotId = added.keySlot?.slotId ?? ''
    await stand.calls.removeKeySlot({ folder, slotId })
    const gone = await failureOf(stand.calls.removeKeySlot({ folder, slotId }))
    expect(gone.reason).toBe('NOT_FOUND')
    expect(await packs()).toEqual(before)
  })

  it('refuses what cannot be, and says nothing of the secret', async () => {
    const open = await secretFile('open', 'correct horse')
    await chmod(open, 0o644)
    const made = failureOf(
      stand.calls.createRepository({ folder: stand.path('never'), passphraseFile: open }),
    )
    expect((await made).message).toContain('others can read it')
    expect((await made).message).not.toContain('horse')
    const plain = await failureOf(
      stand.calls.unlockRepository({ folder: stand.repository, passphraseFile: open }),
    )
    expect(plain).toMatchObject({ reason: 'ARGUMENT_INVALID' })
    const nothing = await stand.calls.listKeySlots({ folder: stand.repository })
    expect(nothing.keySlots).toEqual([])
  })

  it('is closed to an installation whose key slot was removed', async () => {
    const copy = stand.path('copy')
    await cp(folder, copy, { recursive: true })
    const slot = (await stand.calls.listKeySlots({ folder: copy })).keySlots
    for (const { slotId, label } of slot) {
      if (label.startsWith('installation')) await rm(join(copy, 'keys', `${slotId}.key`))
    }
    const refused = await failureOf(stand.calls.inspectRepository({ folder: copy }))
    expect(refused.reason).toBe('KEY_WRONG')
  })
})
