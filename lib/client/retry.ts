/** The retry loop: sends a call until its response is final, or a limit is reached. */

import { retryDelay, sleep } from './backoff.ts'
import type { CallInfo, GiveUpReason, RetrySettings } from './options.ts'
import { decideRetry, type ResponseView } from './retry-decision.ts'

/** One call of an HTTP library, as the retry loop sees it. */
export interface RetryableCall<T> {
  readonly info: CallInfo
  /** False: the call is sent once only. */
  readonly repeatable: boolean
  readonly signal: AbortSignal | undefined
  /** Runs before each attempt. If it throws, the call ends with that error. */
  beforeAttempt?(): Promise<void>
  /** Sends the request once; rejects if there was no response within `timeoutMs`. */
  send(timeoutMs: number): Promise<T>
  view(result: T): ResponseView
  /** Whether another attempt may help after `send` has rejected with this error. Default: always. */
  isRetryable?(error: unknown): boolean
  /** The error to throw when no attempt got a response. */
  errorWithoutResponse(why: GiveUpReason, attempts: number, error: unknown): unknown
}

/** The result of a call with retries. */
export interface Result<T> {
  result: T
  attempts: number
  /** False when a limit was reached: `result` is then the last response. */
  final: boolean
}

/** Sends a call until its response is final, or a limit is reached. */
export async function withRetries<T>(
  call: RetryableCall<T>,
  settings: RetrySettings,
): Promise<Result<T>> {
  const { maxAttempts, attemptTimeout, timeout, budget, onRetry, onGiveUp } = settings
  const deadline = performance.now() + timeout
  let attempts = 0
  let failures = 0
  let last: { result: T } | undefined
  let error: unknown
  for (;;) {
    call.signal?.throwIfAborted()
    await call.beforeAttempt?.()
    attempts += 1
    let response: ResponseView | undefined
    let isInProgress = false
    try {
      const result = await call.send(Math.min(attemptTimeout, deadline - performance.now()))
      response = call.view(result)
      const decision = call.repeatable ? await decideRetry(response) : 'final'
      if (decision === 'final') {
        if (budget) budget.deposit(failures > 0)
        return { result, attempts, final: true }
      }
      last = { result }
      isInProgress = decision === 'wait'
    } catch (thrown) {
      call.signal?.throwIfAborted()
      if (!call.repeatable || call.isRetryable?.(thrown) === false) throw thrown
      error = thrown
    }
    // A server that is running the request has not failed: only `timeout` limits the wait for it.
    if (!isInProgress) failures += 1
    const delay = retryDelay(attempts, response, settings)
    const attempt = {
      ...call.info,
      attempts,
      status: response?.status,
      error: response ? undefined : error,
    }
    const why =
      failures >= maxAttempts
        ? 'maxAttempts'
        : performance.now() + delay >= deadline
          ? 'timeout'
          : !isInProgress && budget && !budget.withdraw() && 'budget'
    if (why) {
      await onGiveUp({ ...attempt, why })
      if (last) return { result: last.result, attempts, final: false }
      throw call.errorWithoutResponse(why, attempts, error)
    }
    await onRetry({ ...attempt, delay })
    await sleep(delay, call.signal)
  }
}
