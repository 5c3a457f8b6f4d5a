import { resolve } from 'node:path'
import { randomHex } from '@blockferry/core'
import { imageFormatNames, move } from '@blockferry/proto'
import type { Command } from 'commander'
import { exitCode } from '../exit_code.ts'
import { usageError } from '../failure.ts'
import { formatArgument } from '../option_value.ts'
import { findBackup } from '../resource_name.ts'
import { printQueued, reportRun } from '../run_report.ts'
import { carryOut, collect, examples, type Outcome } from '../verb.ts'
import { startAndWatch } from '../watch.ts'

interface RestoreOptions {
  to?: string
  backup?: string
  disk?: string[]
  format?: move.ImageFormat
  inPlace?: boolean
  differential?: boolean
  yes?: boolean
  detach?: boolean
}

export function addRestoreCommands(program: Command, outcome: Outcome): void {
  const restore = program.command('restore').enablePositionalOptions()
  startVerb(restore, outcome)
  startVerb(restore.command('start'), outcome)
}

function startVerb(command: Command, outcome: Outcome): void {
  command
    .description('restore a VM or some of its disks, and watch it')
    .argument('<backup>', 'id, full name, or latest:VM; with --backup: a VM')
    .option('--backup <id>', 'the backup, when a VM is named')
    .option('--to <dir>', 'folder for the new images and their start script')
    .option('--disk <id>', 'only this disk; repeatable', collect)
    .option('--format <format>', `${imageFormatNames.join(', ')}; default qcow2`, formatArgument)
    .option('--in-place', "replace the VM's own images, which are kept beside; the VM must be off")
    .option(
      '--differential',
      'with --in-place: write only what differs, into the images themselves',
    )
    .option('--yes', 'confirms --in-place')
    .option('-d, --detach', 'print the name of the run and return at once')
  examples(
    command,
    'blockferry restore latest:web-1 --to /srv/restored',
    'blockferry restore 20261123-071500-4f2a9c --to /tmp/x --disk vda --format raw',
    'blockferry restore latest:web-1 --in-place --yes',
    'blockferry restore latest:web-1 --in-place --differential --yes',
  )
  carryOut<RestoreOptions>(command, outcome, async (context, options, text = '') => {
    checkTarget(text, options)
    const { name } = await findBackup(context.services, text, options.backup)
    const request = {
      backup: name,
      disks: options.disk ?? [],
      targetFolder: options.to === undefined ? '' : resolve(options.to),
      format: options.format ?? move.ImageFormat.QCOW2,
      inPlace: options.inPlace ?? false,
      differential: options.differential ?? false,
      confirmInPlace: options.yes ?? false,
      requestId: randomHex(8),
    }
    const start = async () => (await context.services.schedule.startRestore(request)).run
    if (!options.detach) return reportRun(context, await startAndWatch(context, start))
    const run = await start()
    if (run) printQueued(context, [run])
    return exitCode.ok
  })
}

function checkTarget(text: string, options: RestoreOptions): void {
  const { to, inPlace, differential, yes } = options
  if ((to === undefined) === !inPlace) {
    throw usageError(`restore ${text}: give either --to DIR or --in-place`)
  }
  if (differential && !inPlace) {
    throw usageError(`restore ${text}: --differential changes the VM's images; add --in-place`)
  }
  if (differential && !yes) {
    throw usageError(
      `restore ${text} in place: this overwrites what differs in the VM's images, and nothing is kept of it; add --yes`,
    )
  }
  if (inPlace && !yes) {
    throw usageError(
      `restore ${text} in place: this swaps the VM's images for those of the backup (the old ones are kept beside them); add --yes`,
    )
  }
}
