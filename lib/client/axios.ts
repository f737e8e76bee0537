import type { AxiosAdapter, AxiosResponse, AxiosStatic, InternalAxiosRequestConfig } from 'axios'
import { type Answer, isReplayed, typeIn } from './retry-decision.ts'
import { IdempotentFetchError } from './idempotent-fetch-error.ts'
import { formatKey, keyFor } from './idempotency-key.ts'
import {
  IDEMPOTENT_METHODS,
  type KeyOptions,
  type KeySettings,
  type RetryOptions,
  type RetrySettings,
  resolveOptions,
} from './options.ts'
import { bytesOf } from './repeatable-request.ts'
import { withRetries } from './retry.ts'

declare module 'axios' {
  interface AxiosResponse {
    /** Whether the server answered from its record. Set by pawl/client/axios. */
    replayed?: boolean
    /** How many times the request was sent. Set by pawl/client/axios. */
    attempts?: number
    /** The key it was sent with. Set by pawl/client/axios. */
    key?: string | undefined
  }
  interface AxiosError {
    /** How many times the request was sent. Set by pawl/client/axios. */
    attempts?: number
    /** The key it was sent with. Set by pawl/client/axios. */
    key?: string | undefined
  }
}

/** What the interceptor needs of axios, passed in so that there is one axios only. */
export type AxiosStatics = Pick<AxiosStatic, 'getAdapter'>

export type AxiosIdempotencyOptions = RetryOptions & KeyOptions

/**
 * A request interceptor for axios: POST and PATCH get an idempotency key, and requests are retried by
 * the policy of `createIdempotentFetch`. It wraps the request's adapter, so that your interceptors
 * and transforms run once for a call, not once for an attempt. The axios option `timeout`, where it
 * is set, is that of one attempt.
 *
 * @param axios the module's default export
 * @example
 * const api = axios.create({ baseURL: 'https://shop.example' })
 * api.interceptors.request.use(idempotencyInterceptor(axios))
 * const { data, attempts, replayed } = await api.post('/orders', order)
 *
 * @throws IdempotentFetchError `invalid-option`; calls reject with `body-not-repeatable` and
 * `key-malformed`, else with the AxiosError of the last attempt, that has `attempts` and `key`
 */
export function idempotencyInterceptor(
  axios: AxiosStatics,
  options: AxiosIdempotencyOptions = {},
): (config: InternalAxiosRequestConfig) => InternalAxiosRequestConfig {
  const settings = resolveOptions(options)
  return (config) => {
    const adapter = axios.getAdapter(config.adapter, config)
    config.adapter = (final) => sendRepeatedly(final, adapter, settings)
    return config
  }
}

/** An answer, and the error that axios makes of it if its status is none of success. */
interface Outcome {
  response: AxiosResponse
  error?: unknown
}

async function sendRepeatedly(
  config: InternalAxiosRequestConfig,
  adapter: AxiosAdapter,
  settings: RetrySettings & KeySettings,
): Promise<AxiosResponse> {
  const method = (config.method ?? 'GET').toUpperCase()
  const url = `${config.baseURL ?? ''}${config.url ?? ''}`
  const sent = config.headers.get(settings.header)
  const key = keyFor(url, method, typeof sent === 'string' ? sent : undefined, settings)
  if (key !== undefined) config.headers.set(settings.header, formatKey(key, settings.quoted))
  const data = await repeatableData(config)
  let attempts = 0
  const mark = (error: unknown) =>
    (error as { isAxiosError?: boolean } | undefined)?.isAxiosError
      ? Object.assign(error as object, { attempts, key })
      : error
  const { result } = await withRetries<Outcome>(
    {
      info: { url, method, key },
      repeatable: key !== undefined || IDEMPOTENT_METHODS.includes(method),
      signal: config.signal as AbortSignal | undefined,
      async send(timeoutMs) {
        attempts += 1
        try {
          const timeout = Math.min(config.timeout || timeoutMs, timeoutMs)
          // Adapters change the headers they are given.
          const headers = config.headers.concat()
          return { response: await adapter({ ...config, data, headers, timeout }) }
        } catch (error) {
          const { response } = error as { response?: AxiosResponse }
          // An answer that broke off in its middle is there too, but without a body.
          if (response && 'data' in response) return { response, error }
          throw error
        }
      },
      answer: ({ response }) => answerOf(response),
      retriable: isNetworkError,
      noAnswer: (_why, _attempts, error) => error,
    },
    settings,
  ).catch((error) => {
    throw mark(error)
  })
  const { response, error } = result
  Object.assign(response, { replayed: isReplayed(answerOf(response)), attempts, key })
  if (error) throw mark(error)
  return response
}

/** Serialized once: again, a form would get another boundary. Sets the content type it goes with. */
async function repeatableData(config: InternalAxiosRequestConfig): Promise<unknown> {
  const { data } = config
  if (data === undefined || data === null || typeof data === 'string') return data
  if ('pipe' in data) {
    throw new IdempotentFetchError(
      'body-not-repeatable',
      'A stream can be sent only once; nothing was sent. Read it first.',
    )
  }
  const { bytes, type } = await bytesOf(data)
  // In place of what axios takes for the type of everything that is posted.
  if (type) config.headers.setContentType(type)
  return bytes.buffer
}

/** Nothing was answered, and not because the caller or the configuration would not have it. */
function isNetworkError(error: unknown): boolean {
  const { code = '' } = error as { code?: string }
  return !code.startsWith('ERR_') || ['ERR_NETWORK', 'ERR_BAD_RESPONSE'].includes(code)
}

function answerOf(response: AxiosResponse): Answer {
  return {
    status: response.status,
    header: (name) => response.headers[name.toLowerCase()],
    problemType: async () => problemTypeOf(response.data),
  }
}

/** As the adapter left the body: by `responseType` it is text, bytes, a Blob, JSON or a stream. */
async function problemTypeOf(data: unknown): Promise<unknown> {
  if (typeof data === 'string') return typeIn(data)
  if (data instanceof Blob || data instanceof ArrayBuffer || ArrayBuffer.isView(data)) {
    return typeIn(await new Response(data as Blob).text())
  }
  return (data as { type?: unknown } | null)?.type
}
