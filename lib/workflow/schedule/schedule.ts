import { Cron } from 'croner'
import { z } from 'zod'
import { PawlError } from '../../errors/index.ts'
import { parseOptions } from '../../options/parse-options.ts'
import { checkName } from '../define.ts'
import { Workflow } from '../workflow.ts'

/** Options of a schedule. */
export interface ScheduleOptions<Input = unknown> {
  /**
   * When: five fields (minute, hour, day of the month, month, day of the week), six with seconds before
   * them, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Also `mon-fri`, `L` (last), `1#2`.
   */
  cron: string
  /** An IANA time zone, such as `'Europe/Berlin'`. Default `'UTC'`, wherever the process runs. */
  timezone?: string
  /**
   * What becomes of ticks that nobody could run at their time: `'last'` runs the latest of them, `'all'`
   * each, `'skip'` none. Default `'last'`: what is due is done, and an outage ends in no burst.
   */
  missed?: 'skip' | 'last' | 'all'
  /** What the workflow is started with, or a function of the tick that gives it. Default: undefined. */
  input?: Input | ((tick: Date) => Input | Promise<Input>)
}

/** A schedule, as `pawl.schedules()` tells it. */
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

/** A tick that begins later than this after its time has been missed, in ms. */
export const GRACE_MS = 60_000

const EXPRESSION = "a cron expression of 5 or 6 fields like '0 9 * * mon-fri', or '@daily'"
const ZONE = "an IANA time zone like 'Europe/Berlin'"

const scheduleOptions = z.strictObject({
  cron: z
    .string(EXPRESSION)
    .transform((text) => text.trim().split(/\s+/).join(' '))
    // Other forms are no schedule (a date), or mean another thing in each process ('?').
    .refine((text) => /^(@[a-z]+|[^\s@?]+( [^\s@?]+){4,5})$/i.test(text), EXPRESSION)
    .refine((text) => text.length <= 200, 'at most 200 characters'),
  timezone: z.string(ZONE).refine(isZone, ZONE).default('UTC'),
  missed: z.enum(['skip', 'last', 'all'], "'skip', 'last' or 'all'").default('last'),
  input: z.unknown().optional(),
})

/** A schedule as this process knows it. */
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
        `The ${what} was given no workflow.`,
        'Call pawl.schedule(name, options, workflow) with what pawl.workflow(…) returned.',
      )
    }
    this.name = name
    this.cron = cron
    this.timezone = timezone
    this.missed = missed
    this.workflow = workflow
    this.#input = input
    this.#times = parse(what, cron, timezone)
  }

  /** Whoever has another expression or zone has another schedule: neither runs ticks of the other. */
  get version(): string {
    return `${this.cron} ${this.timezone}`
  }

  /** The first tick after a time. */
  after(time: Date): Date {
    return this.#times.nextRun(time) as Date
  }

  /**
   * What to do with a tick.
   * @param now when it begins
   * @returns whether it starts the workflow, and which tick comes next
   */
  plan(tick: Date, now: Date): { runs: boolean; next: Date } {
    const next = this.after(tick)
    const isLast = next > now
    if (this.missed === 'all') return { runs: true, next }
    if (this.missed === 'last')
      return isLast ? { runs: true, next } : { runs: false, next: this.#last(now) }
    const isMissed = !isLast || now.getTime() - tick.getTime() > GRACE_MS
    return { runs: !isMissed, next: isLast ? next : this.after(now) }
  }

  /** Whether the input has to be asked for. */
  get asksForInput(): boolean {
    return typeof this.#input === 'function'
  }

  inputOf(tick: Date): unknown {
    return typeof this.#input === 'function' ? this.#input(tick) : this.#input
  }

  /** The last tick that is not after a time. */
  #last(time: Date): Date {
    return this.#times.previousRuns(1, new Date(time.getTime() + 1))[0] as Date
  }
}

/** @throws PawlError `invalid-option` */
function parse(what: string, cron: string, timezone: string): Cron {
  let reason = 'it never comes'
  try {
    // A fixed time that a change of the clock leaves out comes right after the gap, and one that comes
    // twice is used once; '*' and '*/n' go by the time that passes. As Vixie cron has it.
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
