/** Runs the handler of one attempt, limits its time, and records its response before it is sent. */

import type { Attempt, AttemptResult } from '../engine/attempt.ts'
import { runInExecution } from '../engine/current-execution.ts'
import type { Execution } from '../engine/execution.ts'
import { withTimeout } from '../engine/retry/with-timeout.ts'
import type { Outcome } from '../store/execution-store.ts'
import type { AdmittedAttempt } from './admit-request.ts'
import type { AsyncResponse } from './async-response.ts'
import { dispositionOf, isErrorStatus, isServerError } from './disposition.ts'
import { encodeHeaders, type Header } from './headers.ts'
import { executionUri } from './problem.ts'
import {
  inProgressResponse,
  notCarriedOutResponse,
  notRecordedResponse,
  type PawlResponse,
  replayResponse,
  timedOutResponse,
} from './responses.ts'
import type { RouteOptions } from './route-options.ts'
import type { RequestRuntime } from './runtime.ts'

/** The handler's response as the adapter captured it, before any byte of it was sent. */
export interface CapturedResponse {
  status: number
  /**
   * The headers that the handler set, changed, or removed (those have no values). Headers that were set
   * before the handler, such as CORS, belong to this one message and are not stored.
   */
  headers: Header[]
  /** Null if the body is not stored: it is larger than `maxBody`, or an event stream. */
  body: Buffer | null
}

/** `send`: the adapter sends the handler's response. Otherwise it sends the given response in its place. */
export type ResponseDecision = 'send' | PawlResponse

/** The response to a request while the adapter intercepts it. */
export interface InterceptedResponse {
  /** Whether the handler's response is complete, or is already being sent. */
  readonly handlerResponded: boolean
  /**
   * Sends a response in the handler's place. A later response of the handler is still captured and
   * recorded, but not sent.
   * @param handlerContinues whether the handler must not notice, and goes on as if its client still waited
   */
  respondInstead(response: PawlResponse, handlerContinues?: boolean): void
}

type RunnerOptions = Pick<
  RouteOptions<never>,
  'retention' | 'storedHeaders' | 'timeout' | 'transaction'
>

/** Runs the handler of one attempt, and decides what happens to its response. */
export class AttemptRunner {
  readonly #runtime: RequestRuntime
  readonly #options: RunnerOptions
  readonly #attempt: Attempt
  readonly #instance: string
  readonly #asyncResponse: AsyncResponse | undefined
  #timeoutTimer: NodeJS.Timeout | undefined
  #asyncTimer: NodeJS.Timeout | undefined
  /** The client has got its 202, so no other response of this attempt is sent. */
  #clientDetached = false
  /** The transaction of the whole request, if the route has one; `#endTransaction` commits or rolls back. */
  #transaction: Promise<AttemptResult> | undefined
  #endTransaction: (outcome: Outcome | null) => void = () => {}

  constructor(
    runtime: RequestRuntime,
    options: RunnerOptions,
    { attempt, asyncResponse }: AdmittedAttempt,
  ) {
    this.#runtime = runtime
    this.#options = options
    this.#attempt = attempt
    this.#asyncResponse = asyncResponse
    this.#instance = executionUri(attempt.execution.id)
  }

  /**
   * Runs the handler and starts the clock of the `timeout` option.
   * @param run must not throw
   */
  start(response: InterceptedResponse, run: (execution: Execution) => void): void {
    this.#timeoutTimer = setTimeout(() => this.#onTimeout(response), this.#options.timeout)
    this.#timeoutTimer.unref()
    if (this.#asyncResponse) {
      this.#asyncTimer = setTimeout(() => this.#detachClient(response), this.#asyncResponse.afterMs)
      this.#asyncTimer.unref()
    }
    const { execution } = this.#attempt
    const handle = () => {
      this.#attempt.hasBegun = true
      runInExecution(execution, () => run(execution))
    }
    if (this.#options.transaction) this.#beginTransaction(response, handle)
    else handle()
  }

  /** Records the handler's response or releases the execution; resolves to what the adapter may now send. */
  async finish(captured: CapturedResponse): Promise<ResponseDecision> {
    clearTimeout(this.#timeoutTimer)
    clearTimeout(this.#asyncTimer)
    const execution = this.#attempt.execution.id
    try {
      const result = await this.#recordOrRelease(captured)
      if (result === 'released') return 'send'
      if (result === 'compensating') return inProgressResponse(this.#instance)
      if (result?.kind === 'done') {
        return result.own ? 'send' : replayResponse(result.outcome, this.#instance)
      }
      if (result) return inProgressResponse(this.#instance) // Another attempt runs, or may run.
      const message =
        'the store is unavailable; an outcome is kept in memory until it can be recorded'
      this.#runtime.logger.warn(message, { execution })
    } catch (error) {
      this.#runtime.logger.warn('an outcome could not be recorded', { error, execution })
      if (this.#transaction) return notCarriedOutResponse()
    }
    return notRecordedResponse(this.#instance)
  }

  /** Resolves to null if the store does not reply within `storeTimeout`. */
  async #recordOrRelease(
    captured: CapturedResponse,
  ): Promise<AttemptResult | 'released' | 'compensating' | null> {
    const attempt = this.#attempt
    const { status } = captured
    const disposition = attempt.isGivingUp ? 'stored' : dispositionOf(status, attempt)
    if (disposition === 'released' || (this.#transaction && isServerError(status))) {
      const result = await (this.#transaction
        ? this.#finishTransaction(null)
        : this.#withinStoreTimeout(attempt.release('released')))
      // If another attempt has taken over, the failure of this one is not the execution's outcome.
      return result && result.kind !== 'released' ? result : 'released'
    }
    const headers = encodeHeaders(captured.headers.filter((header) => this.#isStored(header)))
    const own = { status, headers, body: captured.body }
    const outcome = isErrorStatus(status) || attempt.isGivingUp ? await this.#compensate(own) : own
    if (!outcome) return 'compensating'
    const { completed } = this.#options.retention
    const result = await (this.#transaction
      ? this.#finishTransaction(outcome)
      : this.#withinStoreTimeout(
          attempt.complete(outcome, completed, isServerError(outcome.status)),
        ))
    // `outcome` is not `own` if an earlier attempt gave up with another response: that one is the outcome.
    if (result?.kind === 'done') return { ...result, own: result.own && outcome === own }
    return result ?? null
  }

  /** Runs the compensations; null if one failed, so that another attempt must continue them. */
  async #compensate(outcome: Outcome): Promise<Outcome | null> {
    try {
      const { timeout } = this.#options
      const decided = await withTimeout(timeout, this.#attempt.giveUp(outcome), undefined, false)
      if (decided) return decided
      throw new Error(`The compensations did not finish within ${timeout} ms.`)
    } catch (error) {
      const execution = this.#attempt.execution.id
      this.#runtime.logger.warn('a compensation failed; a retry will continue it', {
        error,
        execution,
      })
      if (this.#transaction) await this.#finishTransaction(null)
      else await this.#withinStoreTimeout(this.#attempt.release('released'))
      return null
    }
  }

  #beginTransaction(response: InterceptedResponse, handle: () => void): void {
    const { transaction, retention } = this.#options
    const host = transaction === true ? undefined : transaction?.on
    let hasBegun = false
    this.#transaction = this.#attempt.completeInTransaction(host, retention.completed, () => {
      hasBegun = true
      // The request has timed out while it waited for a connection: do not run its handler.
      if (response.handlerResponded) return Promise.resolve(null)
      const ended = new Promise<Outcome | null>((resolve) => {
        this.#endTransaction = resolve
      })
      handle()
      return ended
    })
    this.#transaction.catch((error) => {
      if (hasBegun) return // `#finishTransaction` reports this error.
      clearTimeout(this.#timeoutTimer)
      this.#runtime.logger.warn('a transaction could not be started', { error })
      if (!response.handlerResponded) response.respondInstead(notCarriedOutResponse())
    })
  }

  /** Commits with this outcome, or rolls back for null; resolves to null after `storeTimeout`. */
  async #finishTransaction(outcome: Outcome | null): Promise<AttemptResult | null> {
    this.#endTransaction(outcome)
    return this.#withinStoreTimeout(this.#transaction as Promise<AttemptResult>)
  }

  /** Resolves to null if the work takes longer than a response may wait for the store. */
  #withinStoreTimeout<T>(work: Promise<T>): Promise<T | null> {
    return withTimeout(this.#runtime.storeTimeoutMs, work, undefined, false)
  }

  /** Sends the 202. The client can ask for the outcome later, since its execution is in the database. */
  #detachClient(response: InterceptedResponse): void {
    if (response.handlerResponded || !this.#asyncResponse) return
    this.#clientDetached = true
    response.respondInstead(this.#asyncResponse.response, true)
  }

  async #onTimeout(response: InterceptedResponse): Promise<void> {
    clearTimeout(this.#asyncTimer)
    if (response.handlerResponded && !this.#clientDetached) return
    const attempt = this.#attempt
    const ended = this.#transaction
      ? this.#finishTransaction(null)
      : this.#withinStoreTimeout(attempt.interrupt())
    await ended.catch(() => null)
    if (response.handlerResponded || this.#clientDetached) return
    const isResumable = Boolean(this.#transaction) || attempt.isResumable
    response.respondInstead(timedOutResponse(this.#instance, isResumable))
  }

  /** Asks the `storedHeaders` option. If it throws, the header is dropped rather than the outcome lost. */
  #isStored([name]: Header): boolean {
    try {
      return this.#options.storedHeaders(name.toLowerCase())
    } catch (error) {
      const message = 'the storedHeaders option threw; the header is not stored'
      this.#runtime.logger.warn(message, { error, name })
      return false
    }
  }
}
