/** The entry point of pawl/client/follow: a fetch that polls after a 202 until the result is there. */

import { sleep } from './backoff.ts'
import { IdempotentFetchError } from './idempotent-fetch-error.ts'
import { isRequest } from './repeatable-request.ts'

/** Options of {@link followAsync}. */
export interface FollowOptions {
  /** How long one call may take, in milliseconds. After that the caller gets the 202. Default 600,000. */
  timeout?: number
  /** How long the server may hold each poll request open, in milliseconds. Default 20,000. */
  wait?: number
  /**
   * Other origins that may be polled, such as `https://status.example`. They get none of the request's
   * headers. Default: none. A 202 that points to an origin not allowed is returned to the caller.
   */
  origins?: readonly string[]
}

/** The signature of the fetch that `followAsync` takes, and of the one that it returns. */
type Fetch<Init extends RequestInit, Result extends Response> = (
  input: string | URL | Request,
  init?: Init,
) => Promise<Result>

/**
 * Headers of the request that poll requests do not repeat: they describe its body, or were meant for the
 * first response.
 */
const UNRELATED_HEADERS =
  /^(content-.*|expect|if-.*|idempotency-key|prefer|range|transfer-encoding)$/i

/** The statuses in which an execution waits for the client's retry, unless a worker resumes it. */
const STUCK_STATUSES = ['interrupted', 'released', 'parked']

/** Milliseconds between poll requests: if the server does not say, and at most. */
const DEFAULT_DELAY_MS = 1000
const MAX_DELAY_MS = 60_000

/**
 * A fetch that, after a 202, polls the URL in `Location` until the response is another one, and returns
 * that, with the `key` and `attempts` of the request. If the operation was interrupted, it sends the
 * request again with its key, so that the server resumes it.
 *
 * @example
 * const fetch = followAsync(createIdempotentFetch())
 * const response = await fetch('/orders', { method: 'POST', body: JSON.stringify(order) })
 *
 * @param fetch sends each request: `createIdempotentFetch()`, or any other fetch
 * @throws IdempotentFetchError `invalid-option`
 */
export function followAsync<Init extends RequestInit, Result extends Response>(
  fetch: Fetch<Init, Result>,
  options: FollowOptions = {},
): Fetch<Init, Result> {
  const { timeout, wait, origins } = resolveFollowOptions(options)

  return async (input, init) => {
    const deadline = performance.now() + timeout
    const given = isRequest(input) ? input : undefined
    const signal = (init?.signal === undefined ? given : init)?.signal ?? undefined
    const headers = new Headers(init?.headers ?? given?.headers)
    const copy = given?.clone() // The first fetch consumes the body of the original.
    const first = await fetch(input, init)
    const target = statusTargetOf(first, given?.url ?? String(input), origins)
    if (!target) return first
    const { key, attempts } = first as { key?: string; attempts?: number }
    const isRepeatable =
      (key !== undefined || headers.has('Idempotency-Key')) && !isStream(init?.body)
    const finish = (result: Result) =>
      Object.assign(result, key !== undefined && { key }, attempts !== undefined && { attempts })

    let response = first
    for (;;) {
      const left = deadline - performance.now()
      await sleep(Math.max(0, Math.min(pollDelay(response), left)), signal)
      if (deadline - performance.now() <= 0) return finish(response)
      if (isRepeatable && (await isStuck(response))) {
        response = await fetch(
          copy?.clone() ?? input,
          key === undefined ? init : ({ ...init, key } as unknown as Init),
        )
        if (response.status !== 202) return response
      }
      const next = await withDeadline(deadline, signal, (signal, left) =>
        fetch(target.url, pollRequest(target, headers, { ...given, ...init }, signal, left)),
      )
      if (!next) continue // The deadline has passed.
      response.body?.cancel().catch(() => {}) // Frees its connection.
      response = next
      if (response.status !== 202) return finish(response)
    }
  }

  function pollRequest(
    { isSameOrigin }: StatusTarget,
    headers: Headers,
    { credentials }: RequestInit,
    signal: AbortSignal,
    left: number,
  ): Init {
    const pollHeaders = new Headers()
    headers.forEach((value, name) => {
      if (isSameOrigin && !UNRELATED_HEADERS.test(name)) pollHeaders.set(name, value)
    })
    pollHeaders.set('Prefer', `wait=${Math.floor(Math.min(wait, left) / 1000)}`)
    return {
      method: 'GET',
      headers: pollHeaders,
      signal,
      ...(isSameOrigin && credentials && { credentials }),
    } as Init
  }
}

/** The URL to poll after a 202. */
interface StatusTarget {
  url: string
  /** Whether the URL has the origin that the request was sent to. */
  isSameOrigin: boolean
}

/** @returns undefined if the response is not a 202, or points to a URL that may not be polled */
function statusTargetOf(
  response: Response,
  requestUrl: string,
  origins: readonly string[],
): StatusTarget | undefined {
  const location = response.status === 202 && response.headers.get('Location')
  if (!location) return undefined
  try {
    const page = (globalThis as { location?: { href: string } }).location?.href
    const from = new URL(requestUrl, page)
    const { origin, protocol, href } = new URL(location, response.url || from)
    const isSameOrigin = origin === from.origin
    if (!/^https?:$/.test(protocol) || !(isSameOrigin || origins.includes(origin))) return undefined
    return { url: href, isSameOrigin }
  } catch {
    return undefined // `Location` is no valid URL.
  }
}

/** @returns the result of `send`; null if the deadline passes first */
async function withDeadline<T extends Response>(
  deadline: number,
  signal: AbortSignal | undefined,
  send: (signal: AbortSignal, leftMs: number) => Promise<T>,
): Promise<T | null> {
  const controller = new AbortController()
  const abort = () => controller.abort(signal!.reason)
  signal?.throwIfAborted()
  signal?.addEventListener('abort', abort)
  const left = deadline - performance.now()
  const timer = setTimeout(() => controller.abort(), left)
  let isFinal = false
  try {
    const response = await send(controller.signal, left)
    isFinal = response.status !== 202
    return response
  } catch (error) {
    if (controller.signal.aborted && !signal?.aborted) return null
    throw error
  } finally {
    clearTimeout(timer)
    // The caller may still abort the body of the final response while it reads it.
    if (!isFinal) signal?.removeEventListener('abort', abort)
  }
}

/** Whether the response is a status document of a request that waits for the client's retry. */
async function isStuck(response: Response): Promise<boolean> {
  type Document = { kind?: unknown; status?: string }
  const document: unknown = await response
    .clone()
    .json()
    .catch(() => null)
  const { kind, status = '' } = (document ?? {}) as Document
  return kind === 'request' && STUCK_STATUSES.includes(status)
}

function isStream(body: RequestInit['body']): boolean {
  return typeof body === 'object' && body !== null && 'getReader' in body
}

/** Milliseconds until the next poll request. */
function pollDelay(response: Response): number {
  const seconds = response.headers.get('Retry-After') ?? ''
  return /^\d+$/.test(seconds) ? Math.min(Number(seconds) * 1000, MAX_DELAY_MS) : DEFAULT_DELAY_MS
}

function resolveFollowOptions(options: FollowOptions): Required<FollowOptions> {
  const settings: Required<FollowOptions> = { timeout: 600_000, wait: 20_000, origins: [] }
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue
    const isTime = Number.isFinite(value) && value >= 0 && value <= 2 ** 31 - 1
    const isFine = name === 'origins' ? Array.isArray(value) : name in settings && isTime
    if (!isFine) {
      throw new IdempotentFetchError(
        'invalid-option',
        `Option "${name}" is ${value}; allowed: timeout and wait in milliseconds, up to 24 days, and origins, an array.`,
      )
    }
    Object.assign(settings, { [name]: value })
  }
  return settings
}
