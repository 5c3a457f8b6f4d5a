// The command line as a tree of commands. What they do is in commands/, one file per noun.
import { readFileSync } from 'node:fs'
import {
  type Argument,
  Command,
  CommanderError,
  Help,
  type HelpConfiguration,
  Option,
} from 'commander'
import { addBackupCommands } from './commands/backup.ts'
import { addCatalogCommands } from './commands/catalog.ts'
import { addDoctorCommand } from './commands/doctor.ts'
import { addHostCommands } from './commands/host.ts'
import { addPolicyCommands } from './commands/policy.ts'
import { addRecoverCommand } from './commands/recover.ts'
import { addRepositoryCommands } from './commands/repository.ts'
import { addRestoreCommands } from './commands/restore.ts'
import { addRetentionCommands } from './commands/retention.ts'
import { addRunCommands } from './commands/run.ts'
import { addServiceCommands } from './commands/service.ts'
import { addVmCommands } from './commands/vm.ts'
import { type Environment, outputFormats, serviceNames } from './config.ts'
import { type ExitCode, exitCode } from './exit_code.ts'
import { printFailure, printThrown } from './failure.ts'
import type { Terminal } from './terminal.ts'
import type { Outcome } from './verb.ts'

const purpose =
  'Backs up virtual machines from the outside: only the blocks that changed, into a repository that proves what it holds.'

const firstSteps = `
First steps:
  blockferry up                                       start everything here
  blockferry host add lab --qemu /run/vms             say where the VMs are
  blockferry repository create nightly /srv/backup    say where backups go
  blockferry backup web-1                             back one up
  blockferry restore latest:web-1 --to /srv/restored  and get it back

Exit codes: 0 done, 1 failed, 2 usage, 3 done but disks were left out,
4 not found, 5 busy, 6 service not reachable, 130 cancelled.
Every command explains itself with --help.`

/** Runs one command line and says how the process is to end. */
export async function runProgram(
  args: string[],
  terminal: Terminal,
  env: Environment,
): Promise<ExitCode> {
  const outcome: Outcome = { terminal, env, code: exitCode.ok }
  try {
    await newProgram(outcome, args).parseAsync(args, { from: 'user' })
    return outcome.code
  } catch (thrown) {
    if (thrown instanceof CommanderError)
      return thrown.exitCode === 0 ? exitCode.ok : exitCode.usage
    return printThrown(terminal, wantsJson(args, env) ? 'json' : 'table', thrown)
  }
}

function newProgram(outcome: Outcome, args: string[]): Command {
  const { terminal, env } = outcome
  const program = new Command('blockferry')
    .usage('COMMAND …')
    .description(purpose)
    .version(version())
    .addHelpText('after', firstSteps)
    .configureHelp(helpLayout(terminal))
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.out(text),
      writeErr: (text) => terminal.err(text),
      outputError: (text, write) => {
        const message = text.replace(/^error: /, '').trim()
        if (wantsJson(args, env)) {
          printFailure(terminal, 'json', { reason: 'ARGUMENT_INVALID', message, metadata: {} })
        } else {
          write(`blockferry: ${message.replaceAll('\n', ' ')}\n  try: add --help\n`)
        }
      },
    })
  addGlobalOptions(program)
  program.commandsGroup('Backup and restore:')
  addBackupCommands(program, outcome)
  addRestoreCommands(program, outcome)
  addRunCommands(program, outcome)
  program.commandsGroup('What is protected, and where:')
  addHostCommands(program, outcome)
  addVmCommands(program, outcome)
  addRepositoryCommands(program, outcome)
  addPolicyCommands(program, outcome)
  addRetentionCommands(program, outcome)
  addCatalogCommands(program, outcome)
  addRecoverCommand(program, outcome)
  program.commandsGroup('Services:')
  addServiceCommands(program, outcome)
  addDoctorCommand(program, outcome)
  return program
}

function version(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8')
  return `blockferry ${(JSON.parse(text) as { version: string }).version}`
}

const helpWidthMax = 100

function helpLayout({ columns }: Terminal): HelpConfiguration {
  const layout = new Help()
  return {
    helpWidth: Math.min(columns, helpWidthMax),
    showGlobalOptions: true,
    // Options of a noun that is also a verb (`backup`, `restore`) are not those of its other verbs.
    visibleGlobalOptions: (command) =>
      command.parent === null ? [] : layout.visibleOptions(rootOf(command)).slice(0, -1),
    visibleCommands: (command) =>
      layout.visibleCommands(command).filter((each) => each.name() !== 'help'),
    subcommandTerm: (command) =>
      [command.name(), ...command.registeredArguments.map(argumentTerm)].join(' '),
  }
}

function rootOf(command: Command): Command {
  return command.parent === null ? command : rootOf(command.parent)
}

const argumentTerm = (argument: Argument): string => {
  const name = argument.variadic ? `${argument.name()}...` : argument.name()
  return argument.required ? `<${name}>` : `[${name}]`
}

function addGlobalOptions(program: Command): void {
  program
    .option('--state <dir>', 'state folder: sockets, database, log (BLOCKFERRY_STATE)')
    .addOption(
      new Option('-o, --output <format>', 'how results are printed').choices(outputFormats),
    )
    .option('-q, --quiet', 'no progress; only the name of what was made')
    .option('--log-level <level>', 'of services: debug, info, warn, error or silent')
  for (const service of serviceNames) {
    program.addOption(
      new Option(`--endpoint-${service} <address>`, `where the ${service} service is`).hideHelp(),
    )
  }
}

/** Errors of the command line itself come before its options are known. */
function wantsJson(args: string[], env: Environment): boolean {
  const text = args.join(' ')
  return /(^| )(-o|--output)[ =]?json( |$)/.test(text) || env.BLOCKFERRY_OUTPUT === 'json'
}
