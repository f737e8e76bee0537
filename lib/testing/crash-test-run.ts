import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Database } from '../store/database/database.ts'
import { Store } from '../store/execution-store.ts'
import { type CrashTestAnswer, isReplay, problemOf, storedAnswer, toAnswer } from './crash-test-answer.ts'
import { AppProcess, type MakeApp } from './simulated-process.ts'
import type { CrashPoint } from './crash-points.ts'
import type { TestableDatabase } from './killable-database.ts'
import type { CrashTestRequest } from './crash-test-request.ts'

/** What does not change from run to run. */
export interface Setup {
  makeApp: MakeApp<TestableDatabase>
  request: (key: string) => CrashTestRequest
  database: TestableDatabase
  /** The same database, for statements of the test's own. */
  db: Database
  schema: string
  check: (run: { key: string; answer: CrashTestAnswer }) => unknown
  reset: () => unknown
  retries: number
  timeout: number
}

/** What came of one request, with all of its retries. */
export interface Run {
  /** The crash points that its last process has reached. */
  points: CrashPoint[]
  /** The crash points at which its processes died. */
  crashes: CrashPoint[]
  /** The final answer; null if there was none. */
  answer: CrashTestAnswer | null
  isReplay: boolean
  /** The answer to the request once more; only of a run without crashes. */
  again: CrashTestAnswer | null
  /** What is recorded in the end; null if it is encrypted. */
  recorded: CrashTestAnswer | null
  /** What processes were about to record that died, where it is not encrypted. */
  intended: CrashTestAnswer[]
  /** What `check` made of it. */
  check: unknown
  /** Why there is nothing to compare. */
  complaint: string | null
}

/** Answers of Pawl's after which no retry can help. */
const HOPELESS = new Set(['key-missing', 'key-malformed', 'request-mismatch', 'outcome-unknown'])

/** Problems between here and the final answer; what the user's own functions throw is not one. */
class Complaint extends Error {}

/**
 * Makes the request with a key of its own, and retries it until the answer is final.
 *
 * @param crashAt the ids of the crash points at which its first processes die
 */
export async function run(setup: Setup, crashAt: readonly string[]): Promise<Run> {
  await setup.reset()
  const key = `crash-test-${randomUUID()}`
  const result: Run = {
    points: [],
    crashes: [],
    answer: null,
    isReplay: false,
    again: null,
    recorded: null,
    intended: [],
    check: undefined,
    complaint: null,
  }
  const client = new Client(setup, setup.request(key), crashAt, result)
  try {
    await client.untilFinal()
    if (crashAt.length === 0) result.again = await client.again()
  } catch (error) {
    if (!(error instanceof Complaint)) throw error
    result.complaint = error.message
    return result
  } finally {
    await client.close()
  }
  result.check = copy(await setup.check({ key, answer: result.answer! }))
  return result
}

/** What `check` looked at goes on changing. */
function copy(value: unknown): unknown {
  try {
    return structuredClone(value)
  } catch (cause) {
    throw new TypeError(`check() must return plain data: ${(cause as Error).message}`, { cause })
  }
}

/** A client that retries, and whoever starts the process again that died under it. */
class Client {
  readonly #setup: Setup
  readonly #request: CrashTestRequest
  readonly #crashAt: readonly string[]
  readonly #result: Run
  readonly #store: Store
  readonly #claimed = new Set<string>()
  #process: AppProcess | null = null

  constructor(setup: Setup, request: CrashTestRequest, crashAt: readonly string[], result: Run) {
    this.#setup = setup
    this.#request = request
    this.#crashAt = crashAt
    this.#result = result
    this.#store = new Store(setup.db, setup.schema, randomUUID(), setup.timeout)
  }

  async untilFinal(): Promise<void> {
    for (let tries = 0; ; ) {
      const ending = await this.#send()
      if (ending === 'died') continue
      const answer = ending === 'cut-off' ? null : toAnswer(ending)
      if (answer && (await this.#isFinal(answer))) {
        this.#result.answer = answer
        this.#result.points = [...(this.#process?.points.reached ?? [])]
        this.#result.isReplay = ending !== 'cut-off' && isReplay(ending)
        return
      }
      if (++tries > this.#setup.retries) {
        const last = answer
          ? `${answer.status} ${JSON.stringify(answer.body)}`
          : 'a lost connection'
        throw new Complaint(`There is no final answer after ${tries} tries; the last was ${last}.`)
      }
      await sleep(10 * tries)
    }
  }

  async again(): Promise<CrashTestAnswer> {
    const ending = await this.#send()
    if (typeof ending === 'object') return toAnswer(ending)
    throw new Complaint('The recorded answer could not be had once more.')
  }

  async close(): Promise<void> {
    await this.#process?.stop()
  }

  async #send() {
    const { makeApp, database, schema, db, timeout } = this.#setup
    const { crashes } = this.#result
    this.#process ??= await AppProcess.start(
      makeApp,
      { database, schema },
      db,
      this.#crashAt[crashes.length],
    )
    const { points, witness } = this.#process
    const ending = await this.#process.handle(this.#request, timeout)
    for (const id of witness.claimed) this.#claimed.add(id)
    if (ending === 'timed-out') {
      this.#process = null
      throw new Complaint(`There was no answer within ${timeout} ms.`)
    }
    if (ending === 'died') {
      this.#process = null
      if (points.hit) crashes.push(points.hit)
      const intended = witness.outcomes.map(storedAnswer)
      this.#result.intended.push(...intended.filter((answer) => answer !== null))
    }
    return ending
  }

  async #isFinal(answer: CrashTestAnswer): Promise<boolean> {
    if (HOPELESS.has(problemOf(answer) ?? '')) return true
    if (this.#claimed.size === 0) {
      const { status, body } = answer
      throw new Complaint(
        `The request did not come to Pawl, and was answered with ${status} ${JSON.stringify(body)}. Give the database (and schema) that makeApp is given to new Pawl(), and protect the route with idempotency().`,
      )
    }
    for (const id of this.#claimed) {
      const found = await this.#store.look(id)
      if (!found?.outcome) continue
      this.#result.recorded = storedAnswer(found.outcome)
      return true
    }
    return false
  }
}
