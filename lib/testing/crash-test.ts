/** `crashTest`: runs a request once for every crash point, and compares the results. */

import { parseOptions } from '../options/parse-options.ts'
import { openDatabase } from '../store/database/open-database.ts'
import { Baseline } from './baseline.ts'
import type { CrashPoint } from './crash-points.ts'
import { type CrashTestAnswer, problemCodeOf } from './crash-test-answer.ts'
import { CrashTestError, type CrashTestFailure } from './crash-test-error.ts'
import { type CrashTestOptions, crashTestOptions, crashTestRequest } from './crash-test-options.ts'
import type { CrashTestRequest } from './crash-test-request.ts'
import { type CrashTestRun, type CrashTestSetup, runOnce } from './crash-test-run.ts'
import type { TestableDatabase } from './killable-database.ts'
import type { MakeApp } from './simulated-process.ts'

/** What a passed {@link crashTest} has tried. */
export interface CrashTestReport {
  /** The crash points of the run without crashes, in their order. */
  points: string[]
  /** How many runs were made in all. */
  runs: number
}

/**
 * Sends a request once for every crash point of its journal: before and after its claim, each step, each
 * transaction, its outcome, and its answer. At the crash point the process "dies", another one takes over,
 * and the request is retried with the same key until the answer is final. That answer, and the effects
 * that `check` returns, must equal those of a run without crashes.
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
 * The processes are simulated inside the test's process. State that must not survive a crash (caches,
 * counters) must therefore belong to the app that `makeApp` creates, not to a module.
 *
 * @param makeApp starts the app as a new process would
 * @param request the request, or a function that returns it with the key where the app expects it. An
 * object gets the key as its `Idempotency-Key` header
 * @throws CrashTestError that names each crash point at which a result differs
 * @throws PawlError `invalid-option`
 */
export async function crashTest<D extends TestableDatabase>(
  makeApp: MakeApp<D>,
  request: CrashTestRequest | ((key: string) => CrashTestRequest),
  options: CrashTestOptions<D>,
): Promise<CrashTestReport> {
  const parsed = parseOptions(crashTestOptions, options, 'crashTest()')
  const setup: CrashTestSetup = {
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

/** One crash test: makes its runs and collects their failures. */
class CrashTest {
  readonly #setup: CrashTestSetup
  readonly #title: string
  readonly #crashesPerRun: number
  readonly #log: (line: string) => void
  readonly #failures: CrashTestFailure[] = []
  #runs = 0

  /** @param crashes how many processes die in one run */
  constructor(setup: CrashTestSetup, title: string, crashes: number, log: (line: string) => void) {
    this.#setup = setup
    this.#title = title
    this.#crashesPerRun = crashes
    this.#log = log
  }

  async run(outcome: (answer: CrashTestAnswer) => unknown): Promise<CrashTestReport> {
    const undisturbed = await this.#runUndisturbed()
    const baseline = new Baseline(undisturbed, await this.#runUndisturbed(), outcome)
    const undisturbedRuns = this.#runs
    for (const point of undisturbed.points) await this.#crashAt([point], baseline)
    if (this.#failures.length > 0) {
      const number = `${this.#failures.length} of ${this.#runs - undisturbedRuns} runs with crashes`
      throw new CrashTestError(`${number} change what ${this.#title} does.`, this.#failures)
    }
    return { points: undisturbed.points.map(describe), runs: this.#runs }
  }

  async #runUndisturbed(): Promise<CrashTestRun> {
    this.#runs++
    const result = await runOnce(this.#setup, [])
    const problem = result.answer && problemCodeOf(result.answer)
    const failure = result.failure ?? (problem && `Pawl answered: ${show(result.answer?.body)}`)
    if (failure) {
      throw new CrashTestError(`${this.#title} has no outcome, even without a crash. ${failure}`)
    }
    this.#log(`${this.#title}, undisturbed: ${result.points.length} crash points`)
    return result
  }

  /** @param points where the processes die, one after the other */
  async #crashAt(points: readonly CrashPoint[], baseline: Baseline): Promise<void> {
    this.#runs++
    const crashes = points.map(describe)
    const result = await this.#runOrError(points)
    const mismatch =
      result instanceof Error
        ? { reason: `Threw ${result.name}: ${result.message}`, differences: [] }
        : baseline.compare(result, points.length)
    this.#log(`${mismatch ? 'not ok' : 'ok'}: crash ${crashes.join(', and again ')}`)
    if (mismatch) this.#failures.push({ crashes, ...mismatch })
    if (mismatch || result instanceof Error || points.length >= this.#crashesPerRun) return
    for (const point of result.points) await this.#crashAt([...points, point], baseline)
  }

  /** Runs the request. Returns the error that one of the test's functions threw, such as `check`. */
  async #runOrError(points: readonly CrashPoint[]): Promise<CrashTestRun | Error> {
    const ids = points.map(({ id }) => id)
    try {
      return await runOnce(this.#setup, ids)
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

function titleOf({ request }: CrashTestSetup): string {
  const { method, path } = request('title')
  return `${method} ${path}`
}

function show(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}
