import type { AfterResponseHook, BeforeRequestHook, BeforeRetryHook, Options } from 'ky'
import { answerOf, isReplayed, judge } from './retry-decision.ts'
import { formatKey, keyFor, parseKey } from './idempotency-key.ts'
import {
  type AttemptInfo,
  IDEMPOTENT_METHODS,
  type KeyOptions,
  type KeySettings,
  type RetryOptions,
  type RetrySettings,
  resolveOptions,
} from './options.ts'

/** `timeout` is missing: ky knows no bound for a whole call; give it a `signal`. */
export interface KyIdempotencyOptions
  extends Omit<RetryOptions, 'timeout' | 'onRetry' | 'onGiveUp'>,
    KeyOptions {
  /** Before each further attempt. What it throws ends the call, and is thrown to the caller. */
  onRetry?: (info: AttemptInfo) => unknown
}

/**
 * Options for ky: POST and PATCH get an idempotency key, and ky's own retries follow the policy of
 * `createIdempotentFetch`. Your hooks are kept; `beforeRetry` hooks run as always. Responses have
 * `attempts`, `replayed` and `key`.
 *
 * What ky decides by itself stays as it is: an answer of "still in progress" counts as an attempt,
 * and `attemptTimeout` is ky's `timeout`.
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
  const statusCodes = [408, 409, 425, 429, ...Array.from({ length: 100 }, (_, at) => 500 + at)]
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
        return response && (await judge(answerOf(response))) === 'final' ? false : undefined
      },
    },
    hooks: {
      beforeRequest: [addKey(settings)],
      beforeRetry: [spendBudget(settings, options.onRetry)],
      afterResponse: [readWhole(settings)],
    },
  }
}

function addKey(settings: KeySettings): BeforeRequestHook {
  const { header, quoted } = settings
  return (request, _options, { retryCount }) => {
    if (retryCount > 0) return // ky repeats the request with its headers.
    const { method, url, headers } = request
    const key = keyFor(url, method, headers.get(header), settings)
    if (key !== undefined) headers.set(header, formatKey(key, quoted))
  }
}

function spendBudget(
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
      key: keyIn(request, header),
      attempts: retryCount,
      status: response?.status,
      error: response ? undefined : error,
    })
  }
}

/** Reads the body within the retries: an answer that breaks off in its middle is no answer. */
function readWhole({
  attemptTimeout,
  budget,
  header,
}: RetrySettings & KeySettings): AfterResponseHook {
  return async (request, _options, response, { retryCount }) => {
    const key = keyIn(request, header)
    const events = response.headers.get('Content-Type')?.startsWith('text/event-stream')
    if (key !== undefined && !events) await within(attemptTimeout, response.clone().arrayBuffer())
    const answer = answerOf(response)
    if (budget && (await judge(answer)) === 'final') budget.deposit(retryCount > 0)
    return Object.assign(response, {
      replayed: isReplayed(answer),
      attempts: retryCount + 1,
      key,
    })
  }
}

function keyIn(request: Request, header: string): string | undefined {
  const sent = request.headers.get(header)
  return sent === null ? undefined : parseKey(sent)
}

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`The answer was not whole within ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
