import { answerOf, isReplayed } from './retry-decision.ts'
import { IdempotentFetchError } from './idempotent-fetch-error.ts'
import type { IdempotentFetch, IdempotentResponse, Sender } from './idempotent-fetch.ts'
import {
  type CallInfo,
  FETCH_DEFAULTS,
  IDEMPOTENT_METHODS,
  type KeyOptions,
  type KeySettings,
  type RetryOptions,
  type RetrySettings,
  resolveOptions,
} from './options.ts'
import type { Persistence, ResumableFetch } from './pending-requests.ts'
import { isRequest, type RepeatableRequest, repeatable } from './repeatable-request.ts'
import { type Result, withRetries } from './retry.ts'

export interface IdempotentFetchOptions extends RetryOptions, KeyOptions {
  /** The fetch underneath. Default: the global one. */
  fetch?: (input: string | URL | Request, init?: RequestInit) => Promise<Response>
  /**
   * Headers to add to each attempt, such as credentials that expire. They are never stored. What it
   * throws ends the call, and is thrown to the caller.
   */
  headers?: (call: CallInfo) => RequestInit['headers'] | Promise<RequestInit['headers']>
  /** False: answers are handed on as they arrive, see docs/client.md. Default true. */
  buffer?: boolean
  /** Keeps requests with a key until their answer is final: `indexedDbStore()` and the like. */
  persist?: Persistence
}

/**
 * A fetch that gives POST and PATCH an idempotency key, and retries what is safe to retry.
 *
 * @example
 * const fetch = createIdempotentFetch()
 * const response = await fetch('/orders', { method: 'POST', body: JSON.stringify(order) })
 * console.log(response.status, response.attempts, response.replayed)
 *
 * @throws IdempotentFetchError `invalid-option`
 */
export function createIdempotentFetch(
  options: IdempotentFetchOptions & { persist: Persistence },
): ResumableFetch
export function createIdempotentFetch(options?: IdempotentFetchOptions): IdempotentFetch
export function createIdempotentFetch(options: IdempotentFetchOptions = {}): IdempotentFetch {
  const settings = resolveOptions(options, FETCH_DEFAULTS)
  const sender: Sender = {
    async prepare(input, init = {}) {
      const request = await repeatable(input, init, settings)
      // The mistakes that fetch reports as it reports a broken network, but that no retry mends.
      if (!options.fetch && !isRequest(input)) new Request(input, { ...init, body: null })
      return request
    },
    send: (request) => sendRepeatedly(request, options, settings),
  }
  return (
    options.persist?.attach(sender) ??
    (async (input, init) => (await sender.send(await sender.prepare(input, init))).result)
  )
}

async function sendRepeatedly(
  request: RepeatableRequest,
  options: IdempotentFetchOptions,
  settings: RetrySettings & KeySettings,
): Promise<Result<IdempotentResponse>> {
  const { url, method, key, signal } = request
  const info = { url, method, key }
  let headers: Headers
  const sent = await withRetries<Response>(
    {
      info,
      signal,
      repeatable: key !== undefined || IDEMPOTENT_METHODS.includes(method),
      async before() {
        headers = new Headers(request.headers)
        const added = new Headers(await options.headers?.(info))
        added.forEach((value, name) => {
          headers.set(name, value)
        })
      },
      send: (timeoutMs) => sendOnce(request, headers, options, timeoutMs),
      answer: answerOf,
      noAnswer: (why, attempts, cause) =>
        new IdempotentFetchError(
          'no-answer',
          `No answer to ${method} ${url} in ${attempts} attempts (${why})`,
          { key, attempts, cause },
        ),
    },
    settings,
  )
  const { result, attempts } = sent
  const replayed = isReplayed(answerOf(result))
  return { ...sent, result: Object.assign(result, { replayed, attempts, key }) }
}

async function sendOnce(
  { input, method, body, key, signal, init }: RepeatableRequest,
  headers: Headers,
  options: IdempotentFetchOptions,
  timeoutMs: number,
): Promise<Response> {
  const controller = new AbortController()
  const abort = () => controller.abort(signal!.reason)
  signal?.addEventListener('abort', abort)
  const timer = setTimeout(() => {
    const message = `No answer within ${Math.round(timeoutMs)} ms`
    controller.abort(new DOMException(message, 'TimeoutError'))
  }, timeoutMs)
  let flows = false
  try {
    const { fetch = globalThis.fetch } = options
    const response = await fetch(input, {
      ...init,
      method,
      headers,
      ...(body && { body }),
      signal: controller.signal,
    })
    const events = response.headers.get('Content-Type')?.startsWith('text/event-stream')
    const whole = key !== undefined && (init.buffer ?? options.buffer) !== false
    flows = events || (response.ok && !whole)
    // An answer that breaks off in its middle is no answer. Read here, it is one more reason to
    // retry; the response's own body stays unread, with all of its bytes in memory.
    if (!flows) await response.clone().arrayBuffer()
    return response
  } finally {
    clearTimeout(timer)
    // Whoever reads a body that flows may still abort it.
    if (!flows) signal?.removeEventListener('abort', abort)
  }
}
