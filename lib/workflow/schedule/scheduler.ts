/** Runs the schedules of this process: keeps the next tick of each ready, and starts the workflow when it is due. */

import { runOutsideRequests } from '../../context/outside-requests.ts'
import { retryWhileUnavailable } from '../../engine/retry/retry-while-unavailable.ts'
import { PawlError } from '../../errors/index.ts'
import type { Logger } from '../../options/logger.ts'
import type { ScheduleStore } from '../../store/schedule-store.ts'
import { createDefinition } from '../define.ts'
import { handlerName, type WorkflowDefinition } from '../definition.ts'
import type { Workflow } from '../workflow.ts'
import type { WorkflowExecution } from '../workflow-execution.ts'
import type { WorkflowStarter } from '../workflow-starter.ts'
import { MISSED_AFTER_MS, Schedule, type ScheduleOptions, type ScheduleStatus } from './schedule.ts'

/** How often a process makes sure that each schedule has a next tick, in ms. */
const CHECK_MS = 60_000

/** How long the execution of a tick is kept. The workflow that it started has an execution of its own. */
const TICK_RETENTION = '1 hour'

/** What {@link Scheduler} needs. */
export interface SchedulerDependencies {
  store: ScheduleStore
  logger: Logger
  /** Whether Pawl has stopped. */
  isStopped: () => boolean
}

/** The input of a tick's execution. */
interface Tick {
  /** The time of the tick in ISO 8601. */
  at: string
}

/**
 * The schedules of this process. Each tick is an execution of its own, which is started in advance with a
 * delay. Its key consists of the expression and the time of the tick, so that there is one however many
 * processes start it. When a tick runs, it starts the next tick and then the workflow, with a key of its own.
 */
export class Scheduler {
  readonly #entries = new Map<string, { schedule: Schedule; definition: WorkflowDefinition }>()
  readonly #dependencies: () => SchedulerDependencies
  readonly #starter: WorkflowStarter
  readonly #register: (definition: WorkflowDefinition) => void
  #timer: NodeJS.Timeout | undefined
  #isRunning = false

  constructor(
    dependencies: () => SchedulerDependencies,
    starter: WorkflowStarter,
    register: (definition: WorkflowDefinition) => void,
  ) {
    this.#dependencies = dependencies
    this.#starter = starter
    this.#register = register
  }

  /** Adds a schedule. @throws PawlError `invalid-option` */
  add<Input>(name: string, options: ScheduleOptions<Input>, workflow: Workflow<Input>): void {
    const schedule = new Schedule(name, options, workflow)
    if (this.#entries.has(name)) {
      throw new PawlError(
        'invalid-option',
        `There are two schedules with the name "${name}".`,
        'Give one of them another name.',
      )
    }
    const code = (execution: WorkflowExecution, { at }: Tick) =>
      this.#runTick(schedule, definition, execution, new Date(at))
    const definition: WorkflowDefinition = {
      ...createDefinition('workflow', tickWorkflowName(name), { retention: TICK_RETENTION }, code),
      version: schedule.version,
      handler: handlerName('workflow', tickWorkflowName(name), schedule.version),
    }
    this.#register(definition)
    this.#entries.set(name, { schedule, definition })
    if (this.#isRunning) void this.ensureNextTicks()
  }

  /**
   * Makes sure that each schedule has a next tick, now and regularly from then on, since a person may cancel
   * one.
   */
  async start(): Promise<void> {
    this.#isRunning = true
    await this.ensureNextTicks()
  }

  /** Stops the regular checks. */
  stop(): void {
    this.#isRunning = false
    clearTimeout(this.#timer)
  }

  /** Starts the next tick of each schedule, unless it is started already. */
  ensureNextTicks(): Promise<void> {
    return runOutsideRequests(() => this.#ensureNextTicks())
  }

  async #ensureNextTicks(): Promise<void> {
    if (!this.#isRunning || this.#entries.size === 0) return
    clearTimeout(this.#timer)
    const { store, logger } = this.#dependencies()
    try {
      const now = await this.#now()
      for (const { schedule, definition } of this.#entries.values()) {
        await this.#startTick(schedule, definition, schedule.nextAfter(now))
        // Deletes the ticks of an expression that was replaced by this one and that no process uses any more.
        const prefix = handlerName('workflow', definition.name, '')
        const ended = await store.deleteObsoleteTicks(prefix, definition.handler, MISSED_AFTER_MS)
        if (ended > 0) logger.debug('a schedule has changed', { schedule: schedule.name, ended })
      }
    } catch (error) {
      if (this.#isRunning)
        logger.warn('starting the next ticks of schedules failed; trying again later', { error })
    }
    clearTimeout(this.#timer)
    const jitter = 0.75 + Math.random() / 2
    if (this.#isRunning)
      this.#timer = setTimeout(() => this.ensureNextTicks(), CHECK_MS * jitter).unref()
  }

  /** Lists the schedules with their next ticks. @throws PawlError `not-started`, `store-unavailable` */
  async list(): Promise<ScheduleStatus[]> {
    const entries = [...this.#entries.values()]
    const keys = await this.#dependencies().store.nextTickKeys(
      entries.map((entry) => entry.definition.handler),
    )
    return entries.map(({ schedule }, i) => {
      const { name, workflow, cron, timezone, missed } = schedule
      const at = keys[i]?.split(' ').at(-1)
      return {
        name,
        workflow: workflow.name,
        cron,
        timezone,
        missed,
        next: at ? new Date(at) : null,
      }
    })
  }

  /** The code of a tick's execution. */
  async #runTick(
    schedule: Schedule,
    definition: WorkflowDefinition,
    execution: WorkflowExecution,
    tick: Date,
  ): Promise<void> {
    // A recorded step, so that every attempt decides the same.
    const now = await execution.step('read the clock', () => this.#now())
    const { runs, next } = schedule.plan(tick, now)
    await this.#startTick(schedule, definition, next)
    if (!runs) return
    const { name, workflow } = schedule
    const input = schedule.hasInputFunction
      ? await execution.step('input', () => schedule.inputOf(tick))
      : schedule.inputOf(tick)
    const key = `${name} ${tick.toISOString()}`
    await workflow.start(input, { key }).catch((error) => {
      // The schedule had another expression or input before, under which this tick has already been run.
      if (!(error instanceof PawlError && error.code === 'key-reused')) throw error
    })
  }

  /** Starts the execution of a tick, which begins at the tick's time. */
  async #startTick(schedule: Schedule, definition: WorkflowDefinition, tick: Date): Promise<void> {
    const at = tick.toISOString()
    const delay = Math.max(0, tick.getTime() - (await this.#now()).getTime())
    const key = `${schedule.version} ${at}`
    await this.#starter.start(definition, { at }, { key, delay })
  }

  /** The current time of the database. */
  async #now(): Promise<Date> {
    const { store, isStopped } = this.#dependencies()
    return retryWhileUnavailable(() => store.now(), isStopped)
  }
}

/** The name of the internal workflow that runs the ticks of a schedule. */
function tickWorkflowName(name: string): string {
  return `schedule ${name}`
}
