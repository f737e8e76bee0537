/** The entry point of pawl/client/axios: an axios interceptor that adds idempotency keys and retries. */

import type { AxiosAdapter, AxiosResponse, AxiosStatic, InternalAxiosRequestConfig } from 'axios'
import { formatKey, resolveKey } from './idempotency-key.ts'
import { IdempotentFetchError } from './idempotent-fetch-error.ts'
import {
  IDEMPOTENT_METHODS,
  type KeyOptions,
  type KeySettings,
  type RetryOptions,
  type RetrySettings,
  resolveOptions,
} from './options.ts'
import { serializeBody } from './repeatable-request.ts'
import { withRetries } from './retry.ts'
import { isReplayed, problemTypeIn, type ResponseView } from './retry-decision.ts'

declare module 'axios' {
  interface AxiosResponse {
    /** Whether the server replayed a recorded response. Set by pawl/client/axios. */
    replayed?: boolean
    /** How many times the request was sent. Set by pawl/client/axios. */
    attempts?: number
    /** The key that the request was sent with. Set by pawl/client/axios. */
    key?: string | undefined
  }
  interface AxiosError {
    /** How many times the request was sent. Set by pawl/client/axios. */
    attempts?: number
    /** The key that the request was sent with. Set by pawl/client/axios. */
    key?: string | undefined
  }
}

/** The functions of axios that the interceptor uses. The app passes them, so that there is one axios only. */
export type AxiosStatics = Pick<AxiosStatic, 'getAdapter'>

export type AxiosIdempotencyOptions = RetryOptions & KeyOptions

/**
 * A request interceptor for axios that gives POST and PATCH an idempotency key, and retries requests by
 * the rules of `createIdempotentFetch`. It wraps the request's adapter, so that your interceptors
 * and transforms run once for a call, not once for an attempt. The axios option `timeout`, if
 * set, applies to each attempt.
 *
 * @param axios the module's default export
 * @example
 * const api = axios.create({ baseURL: 'https://shop.example' })
 * api.interceptors.request.use(idempotencyInterceptor(axios))
 * const { data, attempts, replayed } = await api.post('/orders', order)
 *
 * @throws IdempotentFetchError `invalid-option`; calls reject with `body-not-repeatable` and
 * `key-malformed`, else with the AxiosError of the last attempt, to which `attempts` and `key` are added
 */
export function idempotencyInterceptor(
  axios: AxiosStatics,
  options: AxiosIdempotencyOptions = {},
): (config: InternalAxiosRequestConfig) => InternalAxiosRequestConfig {
  const settings = resolveOptions(options)
  return (config) => {
    const adapter = axios.getAdapter(config.adapter, config)
    config.adapter = (final) => sendWithRetries(final, adapter, settings)
    return config
  }
}

/** A response, and the error that axios throws for it if its status is not a success. */
interface AxiosResult {
  response: AxiosResponse
  error?: unknown
}

async function sendWithRetries(
  config: InternalAxiosRequestConfig,
  adapter: AxiosAdapter,
  settings: RetrySettings & KeySettings,
): Promise<AxiosResponse> {
  const method = (config.method ?? 'GET').toUpperCase()
  const url = `${config.baseURL ?? ''}${config.url ?? ''}`
  const given = config.headers.get(settings.header)
  const key = resolveKey(url, method, typeof given === 'string' ? given : undefined, settings)
  if (key !== undefined) config.headers.set(settings.header, formatKey(key, settings.quoted))
  const data = await serializeData(config)
  let attempts = 0
  const withAttempts = (error: unknown) =>
    (error as { isAxiosError?: boolean } | undefined)?.isAxiosError
      ? Object.assign(error as object, { attempts, key })
      : error
  const { result } = await withRetries<AxiosResult>(
    {
      info: { url, method, key },
      repeatable: key !== undefined || IDEMPOTENT_METHODS.includes(method),
      signal: config.signal as AbortSignal | undefined,
      async send(timeoutMs) {
        attempts += 1
        try {
          const timeout = Math.min(config.timeout || timeoutMs, timeoutMs)
          // A copy, since adapters change the headers that they are given.
          const headers = config.headers.concat()
          return { response: await adapter({ ...config, data, headers, timeout }) }
        } catch (error) {
          const { response } = error as { response?: AxiosResponse }
          // A response whose connection broke off has no `data`.
          if (response && 'data' in response) return { response, error }
          throw error
        }
      },
      view: ({ response }) => viewOf(response),
      isRetryable: isNetworkError,
      errorWithoutResponse: (_why, _attempts, error) => error,
    },
    settings,
  ).catch((error) => {
    throw withAttempts(error)
  })
  const { response, error } = result
  Object.assign(response, { replayed: isReplayed(viewOf(response)), attempts, key })
  if (error) throw withAttempts(error)
  return response
}

/**
 * Serializes the body once and sets its content type. Serializing it for each attempt would give a form
 * another boundary each time.
 */
async function serializeData(config: InternalAxiosRequestConfig): Promise<unknown> {
  const { data } = config
  if (data === undefined || data === null || typeof data === 'string') return data
  if ('pipe' in data) {
    throw new IdempotentFetchError(
      'body-not-repeatable',
      'A stream can be sent only once; nothing was sent. Read it first.',
    )
  }
  const { bytes, type } = await serializeBody(data)
  // Replaces the type that axios assumes for every POST body.
  if (type) config.headers.setContentType(type)
  return bytes.buffer
}

/** Whether there was no response, for a reason other than the caller or the configuration. */
function isNetworkError(error: unknown): boolean {
  const { code = '' } = error as { code?: string }
  return !code.startsWith('ERR_') || ['ERR_NETWORK', 'ERR_BAD_RESPONSE'].includes(code)
}

function viewOf(response: AxiosResponse): ResponseView {
  return {
    status: response.status,
    header: (name) => response.headers[name.toLowerCase()],
    problemType: async () => problemTypeOf(response.data),
  }
}

/** @param data what the adapter made of the body: by `responseType` text, bytes, a Blob, JSON or a stream */
async function problemTypeOf(data: unknown): Promise<unknown> {
  if (typeof data === 'string') return problemTypeIn(data)
  if (data instanceof Blob || data instanceof ArrayBuffer || ArrayBuffer.isView(data)) {
    return problemTypeIn(await new Response(data as Blob).text())
  }
  return (data as { type?: unknown } | null)?.type
}
