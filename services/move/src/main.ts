import { mkdir } from 'node:fs/promises'
import { newLog } from '@blockferry/core'
import { argumentInvalid } from '@blockferry/errors'
import * as native from '@blockferry/native'
import { move } from '@blockferry/proto'
import { type RunningService, serve } from '@blockferry/rpc'
import type { MoveConfig } from './config.ts'
import { OwnKeys } from './own_keys.ts'
import { removeStaleSockets, runFolderSizeMax } from './program.ts'
import { Repositories } from './repositories.ts'
import { moveHandlers } from './service.ts'
import { Sessions } from './sessions.ts'
import { Turns } from './turns.ts'

/** Serves the move service until it is disposed of; then every running session is stopped. */
export async function startMove(config: MoveConfig): Promise<RunningService> {
  const { runFolder } = config
  if (!runFolder.startsWith('/') || Buffer.byteLength(runFolder) > runFolderSizeMax) {
    const advice = `give an absolute path of at most ${runFolderSizeMax} bytes`
    throw argumentInvalid('run folder', runFolder, advice)
  }
  await mkdir(runFolder, { recursive: true, mode: 0o700 })
  const log = newLog('move', config.logLevel)
  const repositories = new Repositories(native, new OwnKeys(config.keyFolder))
  const sessions = new Sessions(config)
  const limits = {
    turns: new Turns(config.sessionsMax),
    disksMax: config.disksMax,
    stallTimeoutMs: config.stallTimeoutMs,
  }
  const service = await serve<move.MoveServiceServer>({
    address: config.address,
    name: 'blockferry.move.v1.MoveService',
    definition: move.MoveServiceService,
    handlers: moveHandlers({ config, repositories, sessions, limits, log }),
    log,
  })
  // Only now is it certain that no other mover uses the folder.
  await removeStaleSockets(runFolder)
  return {
    address: service.address,
    async [Symbol.asyncDispose]() {
      await sessions.close()
      await service[Symbol.asyncDispose]()
      repositories[Symbol.dispose]()
    },
  }
}
