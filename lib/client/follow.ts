import { sleep } from './backoff.ts'
import { IdempotentFetchError } from './idempotent-fetch-error.ts'
import { isRequest } from './repeatable-request.ts'

/** Options of {@link followAsync}. */
export interface FollowOptions {
  /** How long to follow one call at most, in milliseconds; the caller then gets the 202. Default 600,000. */
  timeout?: number
  /** For how long the server may hold each question, in milliseconds. Default 20,000. */
  wait?: number
  /**
   * Other origins that may be followed, such as `https://status.example`. They get none of the request's
   * headers. Default: none; where a 202 points elsewhere, the caller gets it.
   */
  origins?: readonly string[]
}

/** What `followAsync` needs of a fetch, and what it returns. */
type Fetch<Init extends RequestInit, Result extends Response> = (
  input: string | URL | Request,
  init?: Init,
) => Promise<Result>

/** Of the request's body, or what the first answer has dealt with. */
const OF_THE_FIRST = /^(content-.*|expect|if-.*|idempotency-key|prefer|range|transfer-encoding)$/i

/** How an execution stands that only its client's retry goes on with, unless a worker does. */
const STUCK = ['interrupted', 'released', 'parked']

/** How long to wait where the server does not say, and at most, in milliseconds. */
const PAUSE = 1000
const MAX_PAUSE = 60_000

/**
 * A fetch that follows a 202 to its result: it asks where `Location` says until there is another answer,
 * and returns that, with the `key` and `attempts` of the request. An operation that nobody goes on with is
 * resumed by sending the request again with its key.
 *
 * @example
 * const fetch = followAsync(createIdempotentFetch())
 * const response = await fetch('/orders', { method: 'POST', body: JSON.stringify(order) })
 *
 * @param fetch what each request is sent with: `createIdempotentFetch()`, or any other
 * @throws IdempotentFetchError `invalid-option`
 */
export function followAsync<Init extends RequestInit, Result extends Response>(
  fetch: Fetch<Init, Result>,
  options: FollowOptions = {},
): Fetch<Init, Result> {
  const { timeout, wait, origins } = resolveFollow(options)

  return async (input, init) => {
    const deadline = performance.now() + timeout
    const given = isRequest(input) ? input : undefined
    const signal = (init?.signal === undefined ? given : init)?.signal ?? undefined
    const headers = new Headers(init?.headers ?? given?.headers)
    const copy = given?.clone() // Reading its body would leave nothing to send again.
    const first = await fetch(input, init)
    const target = targetOf(first, given?.url ?? String(input), origins)
    if (!target) return first
    const { key, attempts } = first as { key?: string; attempts?: number }
    const isRepeatable =
      (key !== undefined || headers.has('Idempotency-Key')) && !isStream(init?.body)
    const finish = (result: Result) =>
      Object.assign(result, key !== undefined && { key }, attempts !== undefined && { attempts })

    let answer = first
    for (;;) {
      const left = deadline - performance.now()
      await sleep(Math.max(0, Math.min(pauseAfter(answer), left)), signal)
      if (deadline - performance.now() <= 0) return finish(answer)
      if (isRepeatable && (await isStuck(answer))) {
        const again = copy?.clone() ?? input
        answer = await fetch(
          again,
          key === undefined ? init : ({ ...init, key } as unknown as Init),
        )
        if (answer.status !== 202) return answer
      }
      const next = await untilDeadline(deadline, signal, (signal, left) =>
        fetch(target.url, questionOf(target, headers, { ...given, ...init }, signal, left)),
      )
      if (!next) continue // The time is up.
      answer.body?.cancel().catch(() => {}) // It would keep its connection.
      answer = next
      if (answer.status !== 202) return finish(answer)
    }
  }

  function questionOf(
    { isSame }: Target,
    headers: Headers,
    { credentials }: RequestInit,
    signal: AbortSignal,
    left: number,
  ): Init {
    const own = new Headers()
    headers.forEach((value, name) => {
      if (isSame && !OF_THE_FIRST.test(name)) own.set(name, value)
    })
    own.set('Prefer', `wait=${Math.floor(Math.min(wait, left) / 1000)}`)
    return {
      method: 'GET',
      headers: own,
      signal,
      ...(isSame && credentials && { credentials }),
    } as Init
  }
}

/** Where a 202 sends its client. */
interface Target {
  url: string
  /** Whether that is the origin that the request was sent to. */
  isSame: boolean
}

/** Undefined for an answer that is not to be followed. */
function targetOf(answer: Response, sent: string, origins: readonly string[]): Target | undefined {
  const location = answer.status === 202 && answer.headers.get('Location')
  if (!location) return undefined
  try {
    const page = (globalThis as { location?: { href: string } }).location?.href
    const from = new URL(sent, page)
    const { origin, protocol, href } = new URL(location, answer.url || from)
    const isSame = origin === from.origin
    if (!/^https?:$/.test(protocol) || !(isSame || origins.includes(origin))) return undefined
    return { url: href, isSame }
  } catch {
    return undefined // It names no place.
  }
}

/** @returns null if the time is up first */
async function untilDeadline<T>(
  deadline: number,
  signal: AbortSignal | undefined,
  ask: (signal: AbortSignal, leftMs: number) => Promise<T>,
): Promise<T | null> {
  const controller = new AbortController()
  const abort = () => controller.abort(signal!.reason)
  signal?.throwIfAborted()
  // Not removed: whoever reads the answer may still abort it.
  signal?.addEventListener('abort', abort, { once: true })
  const left = deadline - performance.now()
  const timer = setTimeout(() => controller.abort(), left)
  try {
    return await ask(controller.signal, left)
  } catch (error) {
    if (controller.signal.aborted && !signal?.aborted) return null
    throw error
  } finally {
    clearTimeout(timer)
  }
}

async function isStuck(answer: Response): Promise<boolean> {
  type Document = { kind?: unknown; status?: string }
  const document: unknown = await answer
    .clone()
    .json()
    .catch(() => null)
  const { kind, status = '' } = (document ?? {}) as Document
  return kind === 'request' && STUCK.includes(status)
}

function isStream(body: RequestInit['body']): boolean {
  return typeof body === 'object' && body !== null && 'getReader' in body
}

function pauseAfter(answer: Response): number {
  const seconds = answer.headers.get('Retry-After') ?? ''
  return /^\d+$/.test(seconds) ? Math.min(Number(seconds) * 1000, MAX_PAUSE) : PAUSE
}

function resolveFollow(options: FollowOptions): Required<FollowOptions> {
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
