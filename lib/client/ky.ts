/** The entry point of pawl/client/ky: hooks and retry options for ky that add idempotency keys. */

import type { AfterResponseHook, BeforeRequestHook, BeforeRetryHook, Options } from 'ky'
import { formatKey, parseKey, resolveKey } from './idempotency-key.ts'
import {
  type AttemptInfo,
  IDEMPOTENT_METHODS,
  type KeyOptions,
  type KeySettings,
  type RetryOptions,
  type RetrySettings,
  resolveOptions,
} from './options.ts'
import { decideRetry, isReplayed, viewOf } from './retry-decision.ts'

/** Has no `timeout`: ky cannot limit a whole call. Give the call a `signal` instead. */
export interface KyIdempotencyOptions
  extends Omit<RetryOptions, 'timeout' | 'onRetry' | 'onGiveUp'>,
    KeyOptions {
  /** Is called before each further attempt. If it throws, the call ends with that error. */
  onRetry?: (info: AttemptInfo) => unknown
}

/**
 * Options for ky that give POST and PATCH an idempotency key, and make ky's own retries follow the rules
 * of `createIdempotentFetch`. Your hooks are kept; `beforeRetry` hooks run as always. Responses have
 * `attempts`, `replayed` and `key`.
 *
 * Two things stay as ky has them: a "still in progress" response counts as an attempt, and
 * `attemptTimeout` is ky's `timeout`.
 *
 * @example
 * const api = ky.extend(idempotencyHooks())
 * const order = await api.post('https://shop.example/orders', { json }).json()
 *
 * @throws IdempotentFetchError `invalid-option`; calls reject with `key-malformed`
 */
export function idempotencyHooks(
  options: KyIdempotencyOptions = {},
): Required<Pick<Options, 'hooks' | 'retry' | 'timeout'>> {
  const settings = resolveOptions(options)
  const { maxAttempts, baseDelay, maxDelay, maxRetryAfter, attemptTimeout } = settings
  const statusCodes = [408, 409, 425, 429, ...Array.from({ length: 100 }, (_, i) => 500 + i)]
  return {
    timeout: attemptTimeout,
    retry: {
      limit: maxAttempts - 1,
      methods: [...IDEMPOTENT_METHODS, ...settings.methods].map(
        (method) => method.toLowerCase() as 'get',
      ),
      statusCodes,
      afterStatusCodes: statusCodes,
      maxRetryAfter,
      backoffLimit: maxDelay,
      delay: (attempts) => baseDelay * 2 ** (attempts - 1),
      jitter: true,
      retryOnTimeout: true,
      async shouldRetry({ error }) {
        const { response } = error as { response?: Response }
        return response && (await decideRetry(viewOf(response))) === 'final' ? false : undefined
      },
    },
    hooks: {
      beforeRequest: [addKey(settings)],
      beforeRetry: [withdrawFromBudget(settings, options.onRetry)],
      afterResponse: [readBody(settings)],
    },
  }
}

function addKey(settings: KeySettings): BeforeRequestHook {
  const { header, quoted } = settings
  return (request, _options, { retryCount }) => {
    if (retryCount > 0) return // ky sends the same headers again.
    const { method, url, headers } = request
    const key = resolveKey(url, method, headers.get(header), settings)
    if (key !== undefined) headers.set(header, formatKey(key, quoted))
  }
}

function withdrawFromBudget(
  { budget, header }: RetrySettings & KeySettings,
  onRetry: KyIdempotencyOptions['onRetry'],
): BeforeRetryHook {
  return async ({ request, error, retryCount }) => {
    if (budget && !budget.withdraw()) throw error
    const { url, method } = request
    const { response } = error as { response?: Response }
    await onRetry?.({
      url,
      method,
      key: keyOf(request, header),
      attempts: retryCount,
      status: response?.status,
      error: response ? undefined : error,
    })
  }
}

/** Reads the body before ky returns the response, so that ky retries one that breaks off. */
function readBody({
  attemptTimeout,
  budget,
  header,
}: RetrySettings & KeySettings): AfterResponseHook {
  return async (request, _options, response, { retryCount }) => {
    const key = keyOf(request, header)
    const isEventStream = response.headers.get('Content-Type')?.startsWith('text/event-stream')
    if (key !== undefined && !isEventStream)
      await withTimeout(attemptTimeout, response.clone().arrayBuffer())
    const view = viewOf(response)
    if (budget && (await decideRetry(view)) === 'final') budget.deposit(retryCount > 0)
    return Object.assign(response, {
      replayed: isReplayed(view),
      attempts: retryCount + 1,
      key,
    })
  }
}

function keyOf(request: Request, header: string): string | undefined {
  const value = request.headers.get(header)
  return value === null ? undefined : parseKey(value)
}

/** Rejects if the promise has not settled after `ms` milliseconds. */
async function withTimeout<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const timedOut = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`The body was not complete within ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([work, timedOut])
  } finally {
    clearTimeout(timer)
  }
}
