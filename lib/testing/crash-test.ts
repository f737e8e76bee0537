import { parseOptions } from '../options/parse-options.ts'
import { openDatabase } from '../store/database/open-database.ts'
import { type CrashTestAnswer, problemOf } from './crash-test-answer.ts'
import type { MakeApp } from './simulated-process.ts'
import type { CrashPoint } from './crash-points.ts'
import { CrashTestError, type CrashTestFailure } from './crash-test-error.ts'
import { Expectation } from './baseline.ts'
import type { TestableDatabase } from './killable-database.ts'
import { type CrashTestOptions, crashTestOptions, crashTestRequest } from './crash-test-options.ts'
import type { CrashTestRequest } from './crash-test-request.ts'
import { type Run, run, type Setup } from './crash-test-run.ts'

/** What {@link crashTest} has tried. */
export interface CrashTestReport {
  /** The crash points of the undisturbed run, in their order. */
  points: string[]
  /** How many requests were made in all. */
  runs: number
}

/**
 * Makes a request once for every crash point of its journal: before and after its claim, each step, each
 * transaction, its outcome, and its answer. There the process "dies", another one takes over, and the
 * request is retried with the same key until it has a final answer. That answer, and what `check` says
 * of the effects, must be those of an undisturbed run.
 *
 * ```ts
 * await crashTest(
 *   async ({ database, schema }) => {
 *     const pawl = new Pawl({ database, schema })
 *     await pawl.start()
 *     return { app: createApp(pawl, database), stop: () => pawl.stop() }
 *   },
 *   { path: '/orders', body: { item: 'book' } },
 *   { database: pool, check: ({ key }) => ({ charges: provider.chargesOf(key) }) },
 * )
 * ```
 *
 * The processes are simulated inside of this one. Whatever `makeApp` gives must therefore keep what must
 * not survive a crash (caches, counters) to itself.
 *
 * @param makeApp starts the app as a new process would
 * @param request the request, or a function that puts the key where the app looks for it. An object gets
 * the key as its `Idempotency-Key` header
 * @throws CrashTestError that names each crash point at which something differs
 * @throws PawlError `invalid-option`
 */
export async function crashTest<D extends TestableDatabase>(
  makeApp: MakeApp<D>,
  request: CrashTestRequest | ((key: string) => CrashTestRequest),
  options: CrashTestOptions<D>,
): Promise<CrashTestReport> {
  const parsed = parseOptions(crashTestOptions, options, 'crashTest()')
  const setup: Setup = {
    makeApp: makeApp as MakeApp<never> as MakeApp<TestableDatabase>,
    request: requestFor(request),
    database: options.database,
    db: await openDatabase(options.database, parsed.timeout),
    schema: parsed.schema,
    check: options.check,
    reset: options.reset ?? (() => {}),
    retries: parsed.retries,
    timeout: parsed.timeout,
  }
  const log = options.log ?? (() => {})
  const outcome = options.outcome ?? ((answer) => answer)
  return new CrashTest(setup, titleOf(setup), parsed.crashes, log).run(outcome)
}

/** The runs of one test. */
class CrashTest {
  readonly #setup: Setup
  readonly #title: string
  readonly #crashes: number
  readonly #log: (line: string) => void
  readonly #failures: CrashTestFailure[] = []
  #runs = 0

  /** @param crashes how many processes die in one run */
  constructor(setup: Setup, title: string, crashes: number, log: (line: string) => void) {
    this.#setup = setup
    this.#title = title
    this.#crashes = crashes
    this.#log = log
  }

  async run(outcome: (answer: CrashTestAnswer) => unknown): Promise<CrashTestReport> {
    const undisturbed = await this.#undisturbed()
    const expectation = new Expectation(undisturbed, await this.#undisturbed(), outcome)
    const undisturbedRuns = this.#runs
    for (const point of undisturbed.points) await this.#crashAt([point], expectation)
    if (this.#failures.length > 0) {
      const number = `${this.#failures.length} of ${this.#runs - undisturbedRuns} runs with crashes`
      throw new CrashTestError(`${number} change what ${this.#title} does.`, this.#failures)
    }
    return { points: undisturbed.points.map(describe), runs: this.#runs }
  }

  async #undisturbed(): Promise<Run> {
    this.#runs++
    const result = await run(this.#setup, [])
    const problem = result.answer && problemOf(result.answer)
    const complaint = result.complaint ?? (problem && `Pawl answered: ${show(result.answer?.body)}`)
    if (complaint) {
      throw new CrashTestError(`${this.#title} has no outcome, also without a crash. ${complaint}`)
    }
    this.#log(`${this.#title}, undisturbed: ${result.points.length} crash points`)
    return result
  }

  /** @param points where the processes die, one after the other */
  async #crashAt(points: readonly CrashPoint[], expectation: Expectation): Promise<void> {
    this.#runs++
    const crashes = points.map(describe)
    const result = await this.#tryRun(points)
    const verdict =
      result instanceof Error
        ? { reason: `Threw ${result.name}: ${result.message}`, differences: [] }
        : expectation.judge(result, points.length)
    this.#log(`${verdict ? 'not ok' : 'ok'}: crash ${crashes.join(', and again ')}`)
    if (verdict) this.#failures.push({ crashes, ...verdict })
    if (verdict || result instanceof Error || points.length >= this.#crashes) return
    for (const point of result.points) await this.#crashAt([...points, point], expectation)
  }

  /** The run, or what the test's own functions threw: an assertion in `check`, for one. */
  async #tryRun(points: readonly CrashPoint[]): Promise<Run | Error> {
    const ids = points.map(({ id }) => id)
    try {
      return await run(this.#setup, ids)
    } catch (error) {
      return error instanceof Error ? error : new Error(show(error))
    }
  }
}

function describe(point: CrashPoint): string {
  return point.describe()
}

function requestFor(
  request: CrashTestRequest | ((key: string) => CrashTestRequest),
): (key: string) => CrashTestRequest {
  const parse = (request: CrashTestRequest) =>
    parseOptions(crashTestRequest, request, 'crashTest(): the request') as CrashTestRequest
  if (typeof request === 'function') return (key) => parse(request(key))
  const parsed = parse(request)
  return (key) => ({ ...parsed, headers: { ...parsed.headers, 'Idempotency-Key': key } })
}

function titleOf({ request }: Setup): string {
  const { method, path } = request('title')
  return `${method} ${path}`
}

function show(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}
