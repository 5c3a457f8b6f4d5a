import type { Command } from 'commander'
import { type Environment, type GlobalOptions, settingsOf } from './config.ts'
import type { Context } from './context.ts'
import { type ExitCode, exitCode } from './exit_code.ts'
import { printThrown } from './failure.ts'
import { servicesAt } from './services.ts'
import type { Terminal } from './terminal.ts'

/** Where one command line ends up. */
export interface Outcome {
  terminal: Terminal
  env: Environment
  code: ExitCode
}

export type Action<Options> = (
  context: Context,
  options: Options & GlobalOptions,
  ...args: string[]
  // biome-ignore lint/suspicious/noConfusingVoidType: most actions end in exit code 0 by returning.
) => Promise<ExitCode | void>

/** Gives `command` its action: settings parsed, clients closed afterwards, failures printed. */
export function carryOut<Options>(
  command: Command,
  outcome: Outcome,
  action: Action<Options>,
): Command {
  return command.action(async (...given: unknown[]) => {
    // commander appends the options and the command to the arguments.
    const args = given.slice(0, -2).flat() as string[]
    const options = (given.at(-1) as Command).optsWithGlobals<Options & GlobalOptions>()
    const { terminal, env } = outcome
    const settings = settingsOf(options, env)
    using services = servicesAt(settings.endpoints)
    try {
      const code = await action({ settings, services, terminal, env }, options, ...args)
      outcome.code = code ?? exitCode.ok
    } catch (thrown) {
      outcome.code = printThrown(terminal, settings.output, thrown)
    }
  })
}

/** Adds examples below the options of a command's help. */
export const examples = (command: Command, ...lines: string[]): Command =>
  command.addHelpText('after', `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}`)

/** Collects an option that may be given several times. */
export const collect = (value: string, before: string[] = []): string[] => [...before, value]
