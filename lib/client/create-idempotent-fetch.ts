/** Creates the fetch of pawl/client: it adds idempotency keys, retries, and keeps requests in a store. */

import type { IdempotentFetch, IdempotentResponse, Sender } from './idempotent-fetch.ts'
import { IdempotentFetchError } from './idempotent-fetch-error.ts'
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
import { isRequest, type RepeatableRequest, toRepeatableRequest } from './repeatable-request.ts'
import { type Result, withRetries } from './retry.ts'
import { isReplayed, viewOf } from './retry-decision.ts'

export interface IdempotentFetchOptions extends RetryOptions, KeyOptions {
  /** The fetch that sends each attempt. Default: the global one. */
  fetch?: (input: string | URL | Request, init?: RequestInit) => Promise<Response>
  /**
   * Returns headers to add to each attempt, such as credentials that expire. They are never stored. If it
   * throws, the call ends with that error.
   */
  headers?: (call: CallInfo) => RequestInit['headers'] | Promise<RequestInit['headers']>
  /**
   * Whether to read each body before the response is returned, so that a broken one is retried. False:
   * bodies are streamed, see docs/client.md. Default true.
   */
  buffer?: boolean
  /** Keeps requests with a key until their response is final: `indexedDbStore()` and the like. */
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
      const request = await toRepeatableRequest(input, init, settings)
      // Throws for an invalid request. fetch would report it like a broken network, and it would be
      // retried in vain.
      if (!options.fetch && !isRequest(input)) new Request(input, { ...init, body: null })
      return request
    },
    send: (request) => sendWithRetries(request, options, settings),
  }
  return (
    options.persist?.attach(sender) ??
    (async (input, init) => (await sender.send(await sender.prepare(input, init))).result)
  )
}

async function sendWithRetries(
  request: RepeatableRequest,
  options: IdempotentFetchOptions,
  settings: RetrySettings & KeySettings,
): Promise<Result<IdempotentResponse>> {
  const { url, method, key, signal } = request
  const info = { url, method, key }
  let headers: Headers
  const outcome = await withRetries<Response>(
    {
      info,
      signal,
      repeatable: key !== undefined || IDEMPOTENT_METHODS.includes(method),
      async beforeAttempt() {
        headers = new Headers(request.headers)
        const extra = new Headers(await options.headers?.(info))
        extra.forEach((value, name) => {
          headers.set(name, value)
        })
      },
      send: (timeoutMs) => sendOnce(request, headers, options, timeoutMs),
      view: viewOf,
      errorWithoutResponse: (why, attempts, cause) =>
        new IdempotentFetchError(
          'no-answer',
          `No answer to ${method} ${url} in ${attempts} attempts (${why})`,
          { key, attempts, cause },
        ),
    },
    settings,
  )
  const { result, attempts } = outcome
  const replayed = isReplayed(viewOf(result))
  return { ...outcome, result: Object.assign(result, { replayed, attempts, key }) }
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
  let isStreamed = false
  try {
    const { fetch = globalThis.fetch } = options
    const response = await fetch(input, {
      ...init,
      method,
      headers,
      ...(body && { body }),
      signal: controller.signal,
    })
    const isEventStream = response.headers.get('Content-Type')?.startsWith('text/event-stream')
    const isBuffered = key !== undefined && (init.buffer ?? options.buffer) !== false
    isStreamed = isEventStream || (response.ok && !isBuffered)
    // If the body breaks off, this throws, and the request is retried. The response's own body stays
    // unread, with all of its bytes in memory.
    if (!isStreamed) await response.clone().arrayBuffer()
    return response
  } finally {
    clearTimeout(timer)
    // The caller may still abort a body that it reads as a stream.
    if (!isStreamed) signal?.removeEventListener('abort', abort)
  }
}
