import { PawlError } from '../errors/index.ts'
import { parseOptions } from '../options/parse-options.ts'
import type { Pawl } from '../pawl.ts'
import { pawlOptions } from '../pawl-options.ts'
import { loadPawl } from './load-pawl.ts'

/** How many workflows it runs at a time, if neither the app nor the command line says so. */
const CONCURRENCY = 100

/** What the shell shows of a process that a signal has ended. */
const EXIT_CODES: Partial<Record<NodeJS.Signals, number>> = { SIGINT: 130, SIGTERM: 143 }

export interface WorkOptions {
  /** Default: as the app says; 100 where it has `workers: false`. */
  concurrency?: number
  /** Default: as the app says. */
  schema?: string
}

/**
 * Runs the workflows of a module until the process is told to end. Resolves when it has given back what it
 * had.
 * @throws PawlError
 */
export async function work(file: string, options: WorkOptions): Promise<void> {
  const pawl = await loadPawl(file)
  if (pawl.inside.workflows.definitions.length === 0) {
    throw new PawlError(
      'invalid-option',
      `The Pawl of ${file} has no workflows.`,
      'Define them with pawl.workflow(…) in that module, or in what it imports.',
    )
  }
  const ended = untilToldToEnd()
  employ(pawl, options)
  await pawl.start()
  await report(pawl)
  // Whatever else the app does may let the process end; its timers and listeners do not keep it.
  const alive = setInterval(() => {}, 2 ** 31 - 1)
  const signal = await ended
  console.log(
    `${signal}: taking no more, and waiting at most ${pawl.inside.options.drainTimeout} ms for what runs. Again to exit at once.`,
  )
  await pawl.stop()
  clearInterval(alive)
  console.log('Stopped: what was unfinished goes on elsewhere.')
}

/** Says how it works, before it starts, or of one that the module has started itself. */
function employ({ inside }: Pawl, given: WorkOptions): void {
  const { options, workflows, isStarted } = inside
  const { workers, schema } = parseOptions(
    pawlOptions.pick({ workers: true, schema: true }),
    {
      workers: { concurrency: given.concurrency ?? (options.workers.concurrency || CONCURRENCY) },
      schema: given.schema ?? options.schema,
    },
    'pawl work',
  )
  const wanted = workers.concurrency
  const isAsIs = wanted === options.workers.concurrency
  const canChange = !isStarted || options.workers.concurrency === 0
  if ((!isAsIs && !canChange) || (isStarted && schema !== options.schema)) {
    throw new PawlError(
      'invalid-option',
      'The module has started its Pawl itself, with other options.',
      'Leave pawl.start() to pawl work, or give workers and schema to new Pawl().',
    )
  }
  Object.assign(options, { workers, schema })
  if (isStarted) workflows.employ(wanted)
}

async function report(pawl: Pawl): Promise<void> {
  const { options, workflows } = pawl.inside
  const schedules = await pawl.schedules()
  const ticks = new Set(schedules.map(({ name }) => `schedule ${name}`))
  const served = workflows.definitions.filter(({ name }) => !ticks.has(name))
  const { concurrency } = options.workers
  console.log(
    `Process ${process.pid} runs what is due in schema "${options.schema}", at most ${concurrency} at a time:`,
  )
  for (const { kind, name, version, queue } of served) {
    const more = [version !== null && `version ${version}`, queue && `queue ${queue.name}`]
    console.log(`  ${[`${kind} ${name}`, ...more.filter(Boolean)].join(', ')}`)
  }
  for (const { name, cron, timezone, next } of schedules) {
    console.log(`  schedule ${name}: ${cron} ${timezone}, next ${next?.toISOString() ?? 'now'}`)
  }
}

/** Resolves at the first signal; the second ends the process. */
function untilToldToEnd(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let told = false
    const onSignal = (signal: NodeJS.Signals) => {
      if (told) process.exit(EXIT_CODES[signal])
      told = true
      resolve(signal)
    }
    process.on('SIGTERM', onSignal)
    process.on('SIGINT', onSignal)
  })
}
