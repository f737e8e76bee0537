/** The `work` command of the command line: runs the workflows of an app until a signal ends it. */

import { PawlError } from '../errors/index.ts'
import { parseOptions } from '../options/parse-options.ts'
import type { Pawl } from '../pawl.ts'
import { pawlOptions } from '../pawl-options.ts'
import { loadPawl } from './load-pawl.ts'

/** How many workflows run at a time if neither the app nor the command line sets a number. */
const DEFAULT_CONCURRENCY = 100

/** The exit codes that a shell reports for a process that these signals ended. */
const EXIT_CODES: Partial<Record<NodeJS.Signals, number>> = { SIGINT: 130, SIGTERM: 143 }

export interface WorkOptions {
  /** How many workflows run at a time. Default: the app's setting; 100 if it has `workers: false`. */
  concurrency?: number
  /** Default: the app's setting. */
  schema?: string
}

/**
 * Runs the workflows of a module until SIGTERM or SIGINT. Resolves once running workflows have ended or
 * were released for other processes.
 * @throws PawlError
 */
export async function workCommand(file: string, options: WorkOptions): Promise<void> {
  const pawl = await loadPawl(file)
  if (pawl.internals.workflows.definitions.length === 0) {
    throw new PawlError(
      'invalid-option',
      `The Pawl of ${file} has no workflows.`,
      'Define them with pawl.workflow(…) in that module, or in what it imports.',
    )
  }
  const terminated = terminationSignal()
  applyOptions(pawl, options)
  await pawl.start()
  await printSummary(pawl)
  // Pawl's own timers and listeners do not keep the process running, and the app may have none.
  const keepAlive = setInterval(() => {}, 2 ** 31 - 1)
  const signal = await terminated
  console.log(
    `${signal}: taking no more work, and waiting at most ${pawl.internals.options.drainTimeout} ms for running workflows. A second signal exits at once.`,
  )
  await pawl.stop()
  clearInterval(keepAlive)
  console.log('Stopped: other processes continue unfinished workflows.')
}

/**
 * Applies the options of the command line to the app's Pawl.
 * @throws PawlError `invalid-option` if the module has started it with other options
 */
function applyOptions({ internals }: Pawl, given: WorkOptions): void {
  const { options, workflows, isStarted } = internals
  const { workers, schema } = parseOptions(
    pawlOptions.pick({ workers: true, schema: true }),
    {
      workers: {
        concurrency: given.concurrency ?? (options.workers.concurrency || DEFAULT_CONCURRENCY),
      },
      schema: given.schema ?? options.schema,
    },
    'pawl work',
  )
  const { concurrency } = workers
  const isUnchanged = concurrency === options.workers.concurrency
  const canChange = !isStarted || options.workers.concurrency === 0
  if ((!isUnchanged && !canChange) || (isStarted && schema !== options.schema)) {
    throw new PawlError(
      'invalid-option',
      'The module has started its Pawl itself, with other options.',
      'Do not call pawl.start() in the module, or give workers and schema to new Pawl().',
    )
  }
  Object.assign(options, { workers, schema })
  if (isStarted) workflows.enableWorker(concurrency)
}

async function printSummary(pawl: Pawl): Promise<void> {
  const { options, workflows } = pawl.internals
  const schedules = await pawl.schedules()
  // Each schedule has a workflow of its own, which is not listed twice.
  const ticks = new Set(schedules.map(({ name }) => `schedule ${name}`))
  const served = workflows.definitions.filter(({ name }) => !ticks.has(name))
  const { concurrency } = options.workers
  console.log(
    `Process ${process.pid} runs the workflows of schema "${options.schema}", at most ${concurrency} at a time:`,
  )
  for (const { kind, name, version, queue } of served) {
    const details = [version !== null && `version ${version}`, queue && `queue ${queue.name}`]
    console.log(`  ${[`${kind} ${name}`, ...details.filter(Boolean)].join(', ')}`)
  }
  for (const { name, cron, timezone, next } of schedules) {
    console.log(`  schedule ${name}: ${cron} ${timezone}, next ${next?.toISOString() ?? 'now'}`)
  }
}

/** Resolves to the first SIGTERM or SIGINT. A second one exits the process. */
function terminationSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let received = false
    const onSignal = (signal: NodeJS.Signals) => {
      if (received) process.exit(EXIT_CODES[signal])
      received = true
      resolve(signal)
    }
    process.on('SIGTERM', onSignal)
    process.on('SIGINT', onSignal)
  })
}
