import type { Attempt, Settled } from '../engine/attempt.ts'
import { runAs } from '../engine/current-execution.ts'
import type { Execution } from '../engine/execution.ts'
import { within } from '../engine/retry/with-timeout.ts'
import type { Outcome } from '../store/execution-store.ts'
import type { Admitted } from './admit-request.ts'
import {
  type Answer,
  inProgress,
  notCarriedOut,
  notRecorded,
  replayAnswer,
  timedOut,
} from './responses.ts'
import { encodeHeaders, type Header } from './headers.ts'
import { fate, isError, isFailure } from './disposition.ts'
import type { Later } from './async-response.ts'
import type { RouteOptions } from './route-options.ts'
import type { RequestRuntime } from './runtime.ts'

/** A response that is complete, or about to flow. */
export interface Captured {
  status: number
  /**
   * What the handler set, changed or removed (no values); what was there before it belongs to this one
   * message.
   */
  headers: Header[]
  /** Null if the body flows: it is larger than `maxBody`, or an event stream. */
  body: Buffer | null
}

/** Let the response go as the handler made it, or answer otherwise. */
export type Verdict = 'send' | Answer

/** What an adapter tells of the response to the attempt's request. */
export interface Responding {
  /** Whether the handler has answered, or its answer already flows. */
  readonly answered: boolean
  /**
   * Answers in the handler's place; what it answers later is still concluded.
   * @param goesOn whether the handler goes on as if its client were still there
   */
  answer(answer: Answer, goesOn?: boolean): void
}

type Concluding = Pick<
  RouteOptions<never>,
  'retention' | 'storedHeaders' | 'timeout' | 'transaction'
>

/** Runs one attempt's handler, and decides what becomes of its response. */
export class Conclusion {
  readonly #runtime: RequestRuntime
  readonly #options: Concluding
  readonly #attempt: Attempt
  readonly #instance: string
  readonly #later: Later | undefined
  #timer: NodeJS.Timeout | undefined
  #laterTimer: NodeJS.Timeout | undefined
  /** The client has been told to come back, and hears no more of this attempt. */
  #detached = false
  /** Of a request that is a transaction: its end, and what lets it end. */
  #transaction: Promise<Settled> | undefined
  #endTransaction: (outcome: Outcome | null) => void = () => {}

  constructor(runtime: RequestRuntime, options: Concluding, { attempt, later }: Admitted) {
    this.#runtime = runtime
    this.#options = options
    this.#attempt = attempt
    this.#later = later
    this.#instance = `urn:uuid:${attempt.execution.id}`
  }

  /**
   * Runs the handler. From now on it has the time that the `timeout` option gives it.
   * @param run must not throw
   */
  begin(response: Responding, run: (execution: Execution) => void): void {
    this.#timer = setTimeout(() => this.#timeUp(response), this.#options.timeout)
    this.#timer.unref()
    if (this.#later) {
      this.#laterTimer = setTimeout(() => this.#detach(response), this.#later.afterMs)
      this.#laterTimer.unref()
    }
    const { execution } = this.#attempt
    const handle = () => runAs(execution, () => run(execution))
    if (this.#options.transaction) this.#beginTransaction(response, handle)
    else handle()
  }

  /** Records or releases; resolves when the response, or what takes its place, may be seen. */
  async conclude(captured: Captured): Promise<Verdict> {
    clearTimeout(this.#timer)
    clearTimeout(this.#laterTimer)
    const execution = this.#attempt.execution.id
    try {
      const settled = await this.#settle(captured)
      if (settled === 'released') return 'send'
      if (settled === 'undoing') return inProgress(this.#instance)
      if (settled?.kind === 'done') {
        return settled.own ? 'send' : replayAnswer(settled.outcome, this.#instance)
      }
      if (settled) return inProgress(this.#instance) // Another attempt is at work, or may be.
      this.#runtime.logger.warn('the store is away; an outcome is held until it is back', {
        execution,
      })
    } catch (error) {
      this.#runtime.logger.warn('an outcome could not be recorded', { error, execution })
      if (this.#transaction) return notCarriedOut()
    }
    return notRecorded(this.#instance)
  }

  /** What became of a response; null while the store is away. */
  async #settle(captured: Captured): Promise<Settled | 'released' | 'undoing' | null> {
    const attempt = this.#attempt
    const { status } = captured
    const verdict = attempt.isGivingUp ? 'stored' : fate(status, attempt)
    if (verdict === 'released' || (this.#transaction && isFailure(status))) {
      const ended = await (this.#transaction
        ? this.#end(null)
        : this.#inTime(attempt.release('released')))
      // Somebody else has taken over: this failure is not the execution's.
      return ended && ended.kind !== 'released' ? ended : 'released'
    }
    const kept = captured.headers.filter((header) => this.#keeps(header))
    const answered = { status, headers: encodeHeaders(kept), body: captured.body }
    const outcome = isError(status) || attempt.isGivingUp ? await this.#undo(answered) : answered
    if (!outcome) return 'undoing'
    const { completed } = this.#options.retention
    const settled = await (this.#transaction
      ? this.#end(outcome)
      : this.#inTime(attempt.complete(outcome, completed, isFailure(outcome.status))))
    // An earlier attempt had given up, with another answer.
    if (settled?.kind === 'done') return { ...settled, own: settled.own && outcome === answered }
    return settled ?? null
  }

  /** Runs the compensations; null if they could not all be run, and another attempt must. */
  async #undo(outcome: Outcome): Promise<Outcome | null> {
    try {
      const { timeout } = this.#options
      const decided = await within(timeout, this.#attempt.giveUp(outcome), undefined, false)
      if (decided) return decided
      throw new Error(`What is to be undone was not within ${timeout} ms.`)
    } catch (error) {
      const execution = this.#attempt.execution.id
      this.#runtime.logger.warn('a compensation failed; a retry goes on with it', {
        error,
        execution,
      })
      if (this.#transaction) await this.#end(null)
      else await this.#inTime(this.#attempt.release('released'))
      return null
    }
  }

  #beginTransaction(response: Responding, handle: () => void): void {
    const { transaction, retention } = this.#options
    const host = transaction === true ? undefined : transaction?.on
    let began = false
    this.#transaction = this.#attempt.completeInTransaction(host, retention.completed, () => {
      began = true
      if (response.answered) return Promise.resolve(null) // It took too long to get a connection.
      const ended = new Promise<Outcome | null>((resolve) => {
        this.#endTransaction = resolve
      })
      handle()
      return ended
    })
    this.#transaction.catch((error) => {
      if (began) return // Whoever waits for the end of the transaction is told.
      clearTimeout(this.#timer)
      this.#runtime.logger.warn('a transaction could not be begun', { error })
      if (!response.answered) response.answer(notCarriedOut())
    })
  }

  /** Commits with this outcome, or rolls back; null if that takes too long to wait for. */
  async #end(outcome: Outcome | null): Promise<Settled | null> {
    this.#endTransaction(outcome)
    return this.#inTime(this.#transaction as Promise<Settled>)
  }

  /** What came of it; null if that takes longer than a response may be held. */
  #inTime<T>(work: Promise<T>): Promise<T | null> {
    return within(this.#runtime.storeTimeoutMs, work, undefined, false)
  }

  /** Lets the client go, which can come back for the outcome: its execution is in the database. */
  #detach(response: Responding): void {
    if (response.answered || !this.#later) return
    this.#detached = true
    response.answer(this.#later.answer, true)
  }

  async #timeUp(response: Responding): Promise<void> {
    clearTimeout(this.#laterTimer)
    if (response.answered && !this.#detached) return
    const attempt = this.#attempt
    const ended = this.#transaction ? this.#end(null) : this.#inTime(attempt.interrupt())
    await ended.catch(() => null)
    if (response.answered || this.#detached) return
    response.answer(timedOut(this.#instance, Boolean(this.#transaction) || attempt.isResumable))
  }

  /** What the app's function says; an outcome is worth more than a header on which it throws. */
  #keeps([name]: Header): boolean {
    try {
      return this.#options.storedHeaders(name.toLowerCase())
    } catch (error) {
      const message = 'the storedHeaders option threw; the header is not stored'
      this.#runtime.logger.warn(message, { error, name })
      return false
    }
  }
}
