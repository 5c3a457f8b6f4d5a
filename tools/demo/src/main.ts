// npm run demo: a real virtual machine is backed up while it writes, changed, backed up
// incrementally, changed again, and both backups are restored and compared with what the
// disks held at each instant. `--help` says the rest.
import { parseArgs } from 'node:util'
import { type Damage, Demo } from './demo.ts'
import { type KeepMessage, startKeeper } from './keep.ts'
import { hasPassed, printReport, type Report } from './report.ts'

const help = `Usage: npm run demo [-- OPTIONS]

Boots a small real virtual machine, backs it up in full and incrementally through the four
services while it writes, restores both backups and compares them with what nbdcopy read
from the same points. Leaves nothing running and nothing behind.

Options:
  --output table|json    json prints the report as one line, last on stdout (table)
  --keep                 leave services and machine running and say what to try next
  --damage reference|pack
                         flip one byte before the comparison: the demo then has to fail
  --help                 this text

Exit codes: 0 both restores are identical, 1 they are not or something failed, 2 usage,
130 interrupted.`

interface Options {
  output: 'table' | 'json'
  damage: Damage
  keep: boolean
  /** Not for people: this process holds what --keep leaves running. */
  holder: boolean
  help: boolean
}

function optionsOf(args: string[]): Options {
  const { values } = parseArgs({
    args,
    options: {
      output: { type: 'string', default: 'table' },
      keep: { type: 'boolean', default: false },
      damage: { type: 'string' },
      holder: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const { output, damage = null, keep, holder, help } = values
  if (output !== 'table' && output !== 'json') throw new Error(`--output ${output}: table or json`)
  if (damage !== null && damage !== 'reference' && damage !== 'pack') {
    throw new Error(`--damage ${damage}: reference or pack`)
  }
  return { output, damage, keep, holder, help }
}

async function main(): Promise<number> {
  let options: Options
  try {
    options = optionsOf(process.argv.slice(2))
  } catch (thrown) {
    console.error(`demo: ${(thrown as Error).message}\n\n${help}`)
    return 2
  }
  if (options.help) {
    console.log(help)
    return 0
  }
  const interrupt = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => interrupt.abort(new Error(`ended by ${name}`)))
  }
  if (options.holder) return hold(options, interrupt.signal)
  return options.keep ? keep(options) : show(options, interrupt.signal)
}

async function show(options: Options, signal: AbortSignal): Promise<number> {
  const demo = await Demo.create({
    damage: options.damage,
    signal,
    tell: (text) => console.error(text),
  })
  try {
    const report = await demo.run()
    report.left_running = await demo.stop()
    print(report, options)
    return hasPassed(report) ? 0 : 1
  } catch (thrown) {
    console.error(`demo: ${(thrown as Error).message}`)
    if (!signal.aborted) await demo.explainFailure()
    return signal.aborted ? 130 : 1
  } finally {
    await demo.stop()
  }
}

/** The holder of --keep: tells its parent how it went and goes on until it is stopped. */
async function hold(options: Options, signal: AbortSignal): Promise<number> {
  const send = (message: KeepMessage) => process.connected && process.send?.(message)
  const demo = await Demo.create({
    damage: options.damage,
    signal,
    tell: (said) => send({ said }),
  })
  try {
    const report = await demo.run()
    send({ report, whatNext: demo.whatNext() })
    await new Promise((resolve) => {
      signal.addEventListener('abort', resolve)
      // Also what keeps this process alive once its parent has gone.
      setInterval(() => {}, 60_000)
    })
    return 0
  } catch (thrown) {
    send({ failed: (thrown as Error).message })
    return 1
  } finally {
    await demo.stop()
  }
}

async function keep(options: Options): Promise<number> {
  const { report, whatNext } = await startKeeper(import.meta.filename, [
    ...process.argv.slice(2),
    '--holder',
  ])
  print(report, options)
  console.error(whatNext)
  return hasPassed(report) ? 0 : 1
}

function print(report: Report, options: Options): void {
  if (options.output === 'json') console.log(JSON.stringify(report))
  else printReport(report)
}

process.exit(await main())
