import { type Answer, judge } from './retry-decision.ts'
import { delayAfter, sleep } from './backoff.ts'
import type { CallInfo, GiveUpReason, RetrySettings } from './options.ts'

/** One call, as the library underneath can make it. */
export interface Call<T> {
  readonly info: CallInfo
  /** Whether it may be sent more than once at all. */
  readonly repeatable: boolean
  readonly signal: AbortSignal | undefined
  /** Before each attempt; what it throws ends the call. */
  before?(): Promise<void>
  /** Sends it once; rejects if no answer came within `timeoutMs`. */
  send(timeoutMs: number): Promise<T>
  answer(result: T): Answer
  /** Whether another attempt may help after this rejection. Default: always. */
  retriable?(error: unknown): boolean
  /** What to throw when there never was an answer. */
  noAnswer(why: GiveUpReason, attempts: number, error: unknown): unknown
}

export interface Result<T> {
  result: T
  attempts: number
  /** False when the policy gave up: the result is then the last answer there was. */
  final: boolean
}

/** Sends a call until its answer is final, or the policy gives up. */
export async function withRetries<T>(call: Call<T>, settings: RetrySettings): Promise<Result<T>> {
  const { maxAttempts, attemptTimeout, timeout, budget, onRetry, onGiveUp } = settings
  const deadline = performance.now() + timeout
  let attempts = 0
  let failures = 0
  let last: { result: T } | undefined
  let error: unknown
  for (;;) {
    call.signal?.throwIfAborted()
    await call.before?.()
    attempts += 1
    let answer: Answer | undefined
    let waiting = false
    try {
      const result = await call.send(Math.min(attemptTimeout, deadline - performance.now()))
      answer = call.answer(result)
      const verdict = call.repeatable ? await judge(answer) : 'final'
      if (verdict === 'final') {
        if (budget) budget.deposit(failures > 0)
        return { result, attempts, final: true }
      }
      last = { result }
      waiting = verdict === 'wait'
    } catch (thrown) {
      call.signal?.throwIfAborted()
      if (!call.repeatable || call.retriable?.(thrown) === false) throw thrown
      error = thrown
    }
    // A server at work on the request is well: only `timeout` limits how long we wait for it.
    if (!waiting) failures += 1
    const delay = delayAfter(attempts, answer, settings)
    const happened = {
      ...call.info,
      attempts,
      status: answer?.status,
      error: answer ? undefined : error,
    }
    const why =
      failures >= maxAttempts
        ? 'maxAttempts'
        : performance.now() + delay >= deadline
          ? 'timeout'
          : !waiting && budget && !budget.withdraw() && 'budget'
    if (why) {
      await onGiveUp({ ...happened, why })
      if (last) return { result: last.result, attempts, final: false }
      throw call.noAnswer(why, attempts, error)
    }
    await onRetry({ ...happened, delay })
    await sleep(delay, call.signal)
  }
}
