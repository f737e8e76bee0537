import { persist } from '../../engine/retry/retry-while-unavailable.ts'
import { PawlError } from '../../errors/index.ts'
import type { Logger } from '../../options/logger.ts'
import type { ScheduleStore } from '../../store/schedule-store.ts'
import { define } from '../define.ts'
import { type Definition, handlerOf } from '../definition.ts'
import type { Starter } from '../workflow-starter.ts'
import type { Workflow } from '../workflow.ts'
import type { WorkflowExecution } from '../workflow-execution.ts'
import { GRACE_MS, Schedule, type ScheduleOptions, type ScheduleStatus } from './schedule.ts'

/** How often a process makes sure that there is a next tick. */
const CHECK_MS = 60_000

/** How long what is left of a tick is kept: what it started has an execution of its own. */
const RETENTION = '1 hour'

/** What schedules are made of. */
export interface ScheduleParts {
  store: ScheduleStore
  logger: Logger
  /** Whether Pawl has stopped. */
  stopped: () => boolean
}

/** A tick, as its execution is started with. */
interface Tick {
  /** ISO 8601. */
  at: string
}

/**
 * The schedules of this process. Each tick is an execution of its own that is there in advance and begins
 * at its time: its key is made of the expression and that time, so that however many processes start it,
 * there is one. When it runs, it starts the next one, and then the workflow, under a key of that tick.
 */
export class Schedules {
  readonly #known = new Map<string, { schedule: Schedule; definition: Definition }>()
  readonly #parts: () => ScheduleParts
  readonly #starter: Starter
  readonly #define: (definition: Definition) => void
  #timer: NodeJS.Timeout | undefined
  #open = false

  constructor(
    parts: () => ScheduleParts,
    starter: Starter,
    define: (definition: Definition) => void,
  ) {
    this.#parts = parts
    this.#starter = starter
    this.#define = define
  }

  /** @throws PawlError `invalid-option` */
  add<Input>(name: string, options: ScheduleOptions<Input>, workflow: Workflow<Input>): void {
    const schedule = new Schedule(name, options, workflow)
    if (this.#known.has(name)) {
      throw new PawlError(
        'invalid-option',
        `There are two schedules of the name "${name}".`,
        'Give one of them another name.',
      )
    }
    const code = (execution: WorkflowExecution, { at }: Tick) =>
      this.#run(schedule, definition, execution, new Date(at))
    const definition: Definition = {
      ...define('workflow', tickName(name), { retention: RETENTION }, code),
      version: schedule.version,
      handler: handlerOf('workflow', tickName(name), schedule.version),
    }
    this.#define(definition)
    this.#known.set(name, { schedule, definition })
    if (this.#open) void this.check()
  }

  /**
   * Makes sure that each schedule has its next tick, now and from time to time: somebody may have
   * cancelled the one there was.
   */
  async open(): Promise<void> {
    this.#open = true
    await this.check()
  }

  close(): void {
    this.#open = false
    clearTimeout(this.#timer)
  }

  async check(): Promise<void> {
    if (!this.#open || this.#known.size === 0) return
    clearTimeout(this.#timer)
    const { store, logger } = this.#parts()
    try {
      const now = await this.#now()
      for (const { schedule, definition } of this.#known.values()) {
        await this.#start(schedule, definition, schedule.after(now))
        // Ticks of an expression that this one has replaced, and that no process has any more.
        const prefix = handlerOf('workflow', definition.name, '')
        const ended = await store.forgetTicks(prefix, definition.handler, GRACE_MS)
        if (ended > 0) logger.debug('a schedule has changed', { schedule: schedule.name, ended })
      }
    } catch (error) {
      if (this.#open) logger.warn('looking after schedules failed; trying again', { error })
    }
    clearTimeout(this.#timer)
    const jitter = 0.75 + Math.random() / 2
    if (this.#open) this.#timer = setTimeout(() => this.check(), CHECK_MS * jitter).unref()
  }

  /** @throws PawlError `not-started`, `store-unavailable` */
  async list(): Promise<ScheduleStatus[]> {
    const known = [...this.#known.values()]
    const keys = await this.#parts().store.nextTicks(known.map((one) => one.definition.handler))
    return known.map(({ schedule }, i) => {
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

  async #run(
    schedule: Schedule,
    definition: Definition,
    execution: WorkflowExecution,
    tick: Date,
  ): Promise<void> {
    // Recorded, so that every attempt decides alike.
    const now = await execution.step('read the clock', () => this.#now())
    const { runs, next } = schedule.plan(tick, now)
    await this.#start(schedule, definition, next)
    if (!runs) return
    const { name, workflow } = schedule
    const input = schedule.asksForInput
      ? await execution.step('input', () => schedule.inputOf(tick))
      : schedule.inputOf(tick)
    const key = `${name} ${tick.toISOString()}`
    await workflow.start(input, { key }).catch((error) => {
      // Under another expression the same moment has been a tick, with another input: it has had its run.
      if (!(error instanceof PawlError && error.code === 'key-reused')) throw error
    })
  }

  async #start(schedule: Schedule, definition: Definition, tick: Date): Promise<void> {
    const at = tick.toISOString()
    const delay = Math.max(0, tick.getTime() - (await this.#now()).getTime())
    const key = `${schedule.version} ${at}`
    await this.#starter.start(definition, { at }, { key, delay })
  }

  /** The database's time. */
  async #now(): Promise<Date> {
    const { store, stopped } = this.#parts()
    return persist(() => store.now(), stopped)
  }
}

function tickName(name: string): string {
  return `schedule ${name}`
}
