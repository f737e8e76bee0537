/** One run of a crash test: sends the request, and retries it until its answer is final. */

import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Database } from '../store/database/database.ts'
import { ExecutionStore } from '../store/execution-store.ts'
import type { CrashPoint } from './crash-points.ts'
import {
  type CrashTestAnswer,
  isReplay,
  outcomeToAnswer,
  problemCodeOf,
  toAnswer,
} from './crash-test-answer.ts'
import type { CrashTestRequest } from './crash-test-request.ts'
import type { TestableDatabase } from './killable-database.ts'
import { type MakeApp, SimulatedProcess } from './simulated-process.ts'

/** The settings of a crash test that all of its runs share. */
export interface CrashTestSetup {
  makeApp: MakeApp<TestableDatabase>
  request: (key: string) => CrashTestRequest
  database: TestableDatabase
  /** The same database, for the test's own statements. */
  db: Database
  schema: string
  check: (run: { key: string; answer: CrashTestAnswer }) => unknown
  reset: () => unknown
  retries: number
  timeout: number
}

/** The result of one run: of a request with all of its retries. */
export interface CrashTestRun {
  /** The crash points that the last process has reached. */
  points: CrashPoint[]
  /** The crash points at which processes died. */
  crashes: CrashPoint[]
  /** The final answer; null if there was none. */
  answer: CrashTestAnswer | null
  isReplay: boolean
  /** The answer when the finished request is sent once more; only in a run without crashes. */
  replay: CrashTestAnswer | null
  /** The recorded answer; null if it is encrypted. */
  recorded: CrashTestAnswer | null
  /** The answers that processes were about to record when they died; without those that are encrypted. */
  intended: CrashTestAnswer[]
  /** The value that the option `check` returned. */
  check: unknown
  /** Why there is no final answer to compare; null if there is one. */
  failure: string | null
}

/** The codes of Pawl's problem documents after which no retry can help. */
const FINAL_PROBLEMS = new Set([
  'key-missing',
  'key-malformed',
  'request-mismatch',
  'outcome-unknown',
])

/** Ends a run without a final answer. Errors of the user's own functions are not wrapped in it. */
class NoFinalAnswerError extends Error {}

/**
 * Sends the request with a new key, and retries it until the answer is final.
 *
 * @param crashAt the ids of the crash points at which the first processes die, one for each
 */
export async function runOnce(
  setup: CrashTestSetup,
  crashAt: readonly string[],
): Promise<CrashTestRun> {
  await setup.reset()
  const key = `crash-test-${randomUUID()}`
  const result: CrashTestRun = {
    points: [],
    crashes: [],
    answer: null,
    isReplay: false,
    replay: null,
    recorded: null,
    intended: [],
    check: undefined,
    failure: null,
  }
  const client = new RetryingClient(setup, setup.request(key), crashAt, result)
  try {
    await client.requestUntilFinal()
    if (crashAt.length === 0) result.replay = await client.requestReplay()
  } catch (error) {
    if (!(error instanceof NoFinalAnswerError)) throw error
    result.failure = error.message
    return result
  } finally {
    await client.close()
  }
  result.check = clonePlainData(await setup.check({ key, answer: result.answer! }))
  return result
}

/** Copies the value that `check` returned, since the objects in it may change afterwards. */
function clonePlainData(value: unknown): unknown {
  try {
    return structuredClone(value)
  } catch (cause) {
    throw new TypeError(`check() must return plain data: ${(cause as Error).message}`, { cause })
  }
}

/** A client that retries its request, and starts a new process whenever one has died. */
class RetryingClient {
  readonly #setup: CrashTestSetup
  readonly #request: CrashTestRequest
  readonly #crashAt: readonly string[]
  readonly #result: CrashTestRun
  readonly #store: ExecutionStore
  readonly #claimed = new Set<string>()
  #process: SimulatedProcess | null = null

  constructor(
    setup: CrashTestSetup,
    request: CrashTestRequest,
    crashAt: readonly string[],
    result: CrashTestRun,
  ) {
    this.#setup = setup
    this.#request = request
    this.#crashAt = crashAt
    this.#result = result
    this.#store = new ExecutionStore(setup.db, setup.schema, randomUUID(), setup.timeout)
  }

  async requestUntilFinal(): Promise<void> {
    for (let tries = 0; ; ) {
      const result = await this.#send()
      if (result === 'died') continue
      const answer = result === 'connection-lost' ? null : toAnswer(result)
      if (answer && (await this.#isFinal(answer))) {
        this.#result.answer = answer
        this.#result.points = [...(this.#process?.points.reached ?? [])]
        this.#result.isReplay = result !== 'connection-lost' && isReplay(result)
        return
      }
      if (++tries > this.#setup.retries) {
        const last = answer
          ? `${answer.status} ${JSON.stringify(answer.body)}`
          : 'a lost connection'
        throw new NoFinalAnswerError(
          `There is no final answer after ${tries} tries; the last was ${last}.`,
        )
      }
      await sleep(10 * tries)
    }
  }

  async requestReplay(): Promise<CrashTestAnswer> {
    const result = await this.#send()
    if (typeof result === 'object') return toAnswer(result)
    throw new NoFinalAnswerError('The finished request, sent once more, got no answer.')
  }

  async close(): Promise<void> {
    await this.#process?.stop()
  }

  async #send() {
    const { makeApp, database, schema, db, timeout } = this.#setup
    const { crashes } = this.#result
    this.#process ??= await SimulatedProcess.start(
      makeApp,
      { database, schema },
      db,
      this.#crashAt[crashes.length],
    )
    const { points, observed } = this.#process
    const result = await this.#process.sendRequest(this.#request, timeout)
    for (const id of observed.claimed) this.#claimed.add(id)
    if (result === 'timed-out') {
      this.#process = null
      throw new NoFinalAnswerError(`There was no answer within ${timeout} ms.`)
    }
    if (result === 'died') {
      this.#process = null
      if (points.hit) crashes.push(points.hit)
      const intended = observed.outcomes.map(outcomeToAnswer)
      this.#result.intended.push(...intended.filter((answer) => answer !== null))
    }
    return result
  }

  async #isFinal(answer: CrashTestAnswer): Promise<boolean> {
    if (FINAL_PROBLEMS.has(problemCodeOf(answer) ?? '')) return true
    if (this.#claimed.size === 0) {
      const { status, body } = answer
      throw new NoFinalAnswerError(
        `The request did not reach Pawl, and was answered with ${status} ${JSON.stringify(body)}. Pass the database (and schema) that makeApp gets to new Pawl(), and protect the route with idempotency().`,
      )
    }
    for (const id of this.#claimed) {
      const found = await this.#store.read(id)
      if (!found?.outcome) continue
      this.#result.recorded = outcomeToAnswer(found.outcome)
      return true
    }
    return false
  }
}
