/** A schedule: validates its options, and computes the ticks of its cron expression. */

import { Cron } from 'croner'
import { z } from 'zod'
import { PawlError } from '../../errors/index.ts'
import { parseOptions } from '../../options/parse-options.ts'
import { checkName } from '../define.ts'
import { Workflow } from '../workflow.ts'

/** Options of `pawl.schedule()`. */
export interface ScheduleOptions<Input = unknown> {
  /**
   * The cron expression: five fields (minute, hour, day of the month, month, day of the week), six with a
   * field for seconds in front, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Names (`mon-fri`),
   * `L` (last) and `1#2` (second Monday) are supported.
   */
  cron: string
  /** An IANA time zone, such as `'Europe/Berlin'`. Default `'UTC'`, wherever the process runs. */
  timezone?: string
  /**
   * What to do about ticks that no process ran at their time: `'last'` runs the latest of them, `'all'` runs
   * each, `'skip'` runs none. Default `'last'`: due work is done, but an outage does not end in a burst.
   */
  missed?: 'skip' | 'last' | 'all'
  /** The input of the workflow, or a function that returns it for a tick. Default: undefined. */
  input?: Input | ((tick: Date) => Input | Promise<Input>)
}

/** A schedule, as `pawl.schedules()` returns it. */
export interface ScheduleStatus {
  name: string
  /** The name of the workflow that it starts. */
  workflow: string
  cron: string
  timezone: string
  missed: 'skip' | 'last' | 'all'
  /** The next tick; null if it is running now, or if there is none. */
  next: Date | null
}

/** A tick that begins later than this after its time counts as missed, in ms. */
export const MISSED_AFTER_MS = 60_000

const EXPRESSION = "a cron expression of 5 or 6 fields like '0 9 * * mon-fri', or '@daily'"
const ZONE = "an IANA time zone like 'Europe/Berlin'"

const scheduleOptions = z.strictObject({
  cron: z
    .string(EXPRESSION)
    .transform((text) => text.trim().split(/\s+/).join(' '))
    // croner also accepts forms that are no schedule (a date) or differ between processes ('?').
    .refine((text) => /^(@[a-z]+|[^\s@?]+( [^\s@?]+){4,5})$/i.test(text), EXPRESSION)
    .refine((text) => text.length <= 200, 'at most 200 characters'),
  timezone: z.string(ZONE).refine(isZone, ZONE).default('UTC'),
  missed: z.enum(['skip', 'last', 'all'], "'skip', 'last' or 'all'").default('last'),
  input: z.unknown().optional(),
})

/** A schedule with its options resolved. */
export class Schedule {
  readonly name: string
  readonly cron: string
  readonly timezone: string
  readonly missed: 'skip' | 'last' | 'all'
  readonly workflow: Workflow<unknown, unknown>
  readonly #input: unknown
  readonly #times: Cron

  /** @throws PawlError `invalid-option` */
  constructor(name: string, options: unknown, workflow: unknown) {
    checkName(name, 'schedule')
    const what = `schedule "${name}"`
    const { cron, timezone, missed, input } = parseOptions(scheduleOptions, options, what)
    if (!(workflow instanceof Workflow)) {
      throw new PawlError(
        'invalid-option',
        `The ${what} has no workflow.`,
        'Call pawl.schedule(name, options, workflow) with the workflow that pawl.workflow(…) returned.',
      )
    }
    this.name = name
    this.cron = cron
    this.timezone = timezone
    this.missed = missed
    this.workflow = workflow
    this.#input = input
    this.#times = parseCron(what, cron, timezone)
  }

  /**
   * The version of the workflow that runs the ticks. Processes with another expression or time zone have
   * another version, so neither runs ticks of the other.
   */
  get version(): string {
    return `${this.cron} ${this.timezone}`
  }

  /** The first tick after a time. */
  nextAfter(time: Date): Date {
    return this.#times.nextRun(time) as Date
  }

  /**
   * Decides what to do at a tick.
   * @param now the time at which the tick is run
   * @returns whether the tick starts the workflow, and which tick comes next
   */
  plan(tick: Date, now: Date): { runs: boolean; next: Date } {
    const next = this.nextAfter(tick)
    const isLast = next > now
    if (this.missed === 'all') return { runs: true, next }
    if (this.missed === 'last')
      return isLast ? { runs: true, next } : { runs: false, next: this.#last(now) }
    const isMissed = !isLast || now.getTime() - tick.getTime() > MISSED_AFTER_MS
    return { runs: !isMissed, next: isLast ? next : this.nextAfter(now) }
  }

  /** Whether the `input` option is a function. */
  get hasInputFunction(): boolean {
    return typeof this.#input === 'function'
  }

  /** The input that the workflow is started with at a tick. */
  inputOf(tick: Date): unknown {
    return typeof this.#input === 'function' ? this.#input(tick) : this.#input
  }

  /** The last tick that is not after a time. */
  #last(time: Date): Date {
    return this.#times.previousRuns(1, new Date(time.getTime() + 1))[0] as Date
  }
}

/** Parses a cron expression. @throws PawlError `invalid-option` if it is invalid or has no future tick */
function parseCron(what: string, cron: string, timezone: string): Cron {
  let reason = 'it has no future tick'
  try {
    // At a change of the clock this follows Vixie cron: a fixed time that is skipped ticks right after the
    // gap, and one that occurs twice ticks once; '*' and '*/n' follow elapsed time.
    const times = new Cron(cron, { timezone, mode: '5-or-6-parts', fixedTimeRule: 'no-wildcard' })
    if (times.nextRun()) return times
  } catch (error) {
    reason = (error as Error).message
  }
  throw new PawlError(
    'invalid-option',
    `${what}: Option "cron" is ${JSON.stringify(cron)} (${reason.replace(/\.$/, '')}); allowed: ${EXPRESSION}.`,
    'See docs/schedules.md.',
  )
}

function isZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name })
    return true
  } catch {
    return false
  }
}
