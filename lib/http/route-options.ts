/** The options of `idempotency()`: their public type, and the resolved form that the code works with. */

import type { IncomingMessage } from 'node:http'
import type { z } from 'zod'
import { PawlError } from '../errors/index.ts'
import { type ByteSize, type Duration, parseOptions } from '../options/parse-options.ts'
import type { TransactionHost } from '../store/database/transaction-host.ts'
import { createHeaderFilter, type HeaderFilter } from './headers.ts'
import { idempotencyOptions } from './route-options-schema.ts'

/** Options of `idempotency()`, the same for every framework. */
export interface IdempotencyOptions<Request = IncomingMessage> {
  /**
   * Returns the tenant, account or user to which the key belongs: 1 to 1024 characters. Set it wherever
   * callers are authenticated. Default: none; the caller's credentials (Authorization, else Cookie) are
   * then part of the fingerprint, so that another caller's key is a 422 and never a replay.
   */
  scope?: (request: Request) => string | number
  /**
   * The name of the header with the key, or a function that returns the key (undefined if there is none).
   * Default `'Idempotency-Key'`.
   */
  key?: string | ((request: Request) => string | undefined)
  /** The methods that are protected; other requests pass untouched. Default `['POST', 'PATCH']`. */
  methods?: readonly string[] | 'all'
  /** Requests for which this returns true pass untouched. Default: none. */
  skip?: (request: Request) => boolean
  /** Refuse a request without a key (400). Default `false`: such a request passes untouched. */
  required?: boolean
  /**
   * Accept only the structured-field string that the IETF draft requires (`"abc"`, in quotes). Default
   * `false`: the bare token `abc` is accepted too, and is the same key.
   */
  strict?: boolean
  /**
   * Returns a value that is equal for equal requests (a string, bytes or a JSON value), in place of method,
   * URL, content type and body. Pawl then does not read the body.
   */
  fingerprint?: (request: Request) => unknown
  /** How long a duplicate waits for the running attempt before it gets a 409. Default `'5s'`. */
  wait?: Duration
  /**
   * Whether the handler may run again after an attempt that ended without a response (crash, timeout) or
   * with a 5xx. Default: only if the attempt recorded a step. Otherwise the effects of the handler are
   * unknown: its 5xx is stored, and after a crash retries get a 409 (`outcome-unknown`).
   */
  resumable?: boolean
  /**
   * Finish the request even if its client never retries. The request is stored: encrypted if there are
   * `encryptionKeys`, and without headers and query parameters whose names suggest credentials. If its
   * process dies, another process of the app delivers the request to the app again, and recorded steps
   * replay; see `pawl.recoverRequests`. Implies `resumable`. After `attempts` attempts (default 10), at
   * growing intervals, the execution is parked: `pawl list` shows it, and the client's retry or
   * `pawl release` resumes it. Default `false`.
   */
  recover?: boolean | { attempts?: number }
  /**
   * Run the whole request in one database transaction. The handler's writes through `execution.tx` commit
   * exactly once, together with the response and before it is sent. A 5xx, a throw or a timeout rolls
   * everything back, and a retry runs the handler again. A response that streams commits before its first
   * byte. The transaction holds a connection of the pool while the handler runs; if all are taken, further
   * requests wait for one (for `storeTimeout`, then 503). If such a handler records steps, the pool needs at
   * least two connections. `{ on }` uses an ORM's transaction, from `pawl/drizzle` and others. Default `false`.
   */
  transaction?: boolean | { on: TransactionHost<unknown> }
  /**
   * How long an execution is kept; afterwards its key can start a new one. One duration, or one for
   * completed and one for unfinished executions. Default `{ completed: '24h', unfinished: '72h' }`.
   */
  retention?: Duration | { completed?: Duration; unfinished?: Duration }
  /**
   * The largest response body that is stored, in bytes. A larger one is sent but not stored, and its
   * replays say so (`body-not-kept`). At most `'256mb'`. Default `'1mb'`.
   */
  maxBody?: ByteSize
  /** The largest request body that Pawl reads for the fingerprint; a larger one is a 413. Default `'10mb'`. */
  maxRequestBody?: ByteSize
  /**
   * The response headers that are stored: their names, or a function of the lower-case name. Default:
   * every end-to-end header but Set-Cookie. Hop-by-hop headers and Date are never stored.
   */
  storedHeaders?: readonly string[] | ((name: string) => boolean)
  /** How long the handler may take to respond before the client gets a 504. Default `'60s'`. */
  timeout?: Duration
  /**
   * What happens while PostgreSQL is unavailable: `'refuse'` answers 503, `'run'` runs the handler
   * unprotected. Default `'refuse'`.
   */
  onStoreError?: 'refuse' | 'run'
  /**
   * Where `pawl.statusHandler()` is mounted: a path or URL in which `:id` stands for the execution's id, or
   * a function that returns it. On a route with `resumable: true` or `recover`, a client that sends
   * `Prefer: respond-async, wait=5` (RFC 7240) then gets a 202 with `Location` if the handler takes longer
   * than 5 seconds; the handler goes on. On other routes the preference is ignored. Default: none.
   */
  statusUrl?: string | ((id: string, request: Request) => string)
  /**
   * Answer 202 to every client if the handler has not responded within this time, also without a Prefer
   * header. If the client gives a time too, the shorter one counts. `0`: at once. Needs `statusUrl`, and
   * `resumable: true` or `recover`; not possible with `transaction`. `timeout` still limits the handler.
   * Default: never.
   */
  respondAsyncAfter?: Duration
}

/** The options of one route, validated and with their defaults; durations in ms, sizes in bytes. */
export interface RouteOptions<Request> {
  scope: ((request: Request) => unknown) | undefined
  /** A lower-case header name, or a function. */
  key: string | ((request: Request) => unknown)
  /** The header name as the app wrote it, for messages; undefined if `key` is a function. */
  keyHeader: string | undefined
  methods: ReadonlySet<string> | 'all'
  skip: ((request: Request) => unknown) | undefined
  required: boolean
  strict: boolean
  fingerprint: ((request: Request) => unknown) | undefined
  wait: number
  resumable: boolean | undefined
  recover: { attempts: number } | undefined
  transaction: true | { on: TransactionHost<unknown> } | undefined
  retention: { completed: number; unfinished: number }
  maxBody: number
  maxRequestBody: number
  storedHeaders: HeaderFilter
  timeout: number
  onStoreError: 'refuse' | 'run'
  /** Undefined if the route never answers 202. */
  respondAsync: RespondAsync<Request> | undefined
}

/** The options for a 202 before the handler has finished. */
export interface RespondAsync<Request> {
  /** In ms; undefined: only a client with a Prefer header gets a 202. */
  afterMs: number | undefined
  statusUrl: string | ((id: string, request: Request) => unknown)
}

/**
 * Validates and resolves the options of `idempotency()`.
 * @throws PawlError `invalid-option`
 */
export function routeOptions<Request>(
  options: IdempotencyOptions<Request> | undefined,
): RouteOptions<Request> {
  const parsed = parseOptions(idempotencyOptions, options, 'idempotency()')
  type Callback = (request: Request) => unknown
  const { scope, key, skip, fingerprint, statusUrl, respondAsyncAfter, ...rest } = parsed
  return {
    ...rest,
    respondAsync: resolveRespondAsync(parsed) as RespondAsync<Request> | undefined,
    scope: scope && synchronous('scope', scope as Callback),
    key: typeof key === 'string' ? key.toLowerCase() : synchronous('key', key as Callback),
    keyHeader: typeof key === 'string' ? key : undefined,
    skip: skip && synchronous('skip', skip as Callback),
    fingerprint: fingerprint && synchronous('fingerprint', fingerprint as Callback),
    resumable: parsed.resumable,
    recover: parsed.recover || undefined,
    transaction: parsed.transaction || undefined,
    storedHeaders: createHeaderFilter(parsed.storedHeaders as string[] | undefined),
  }
}

/** @throws PawlError `invalid-option` if `respondAsyncAfter` is set on a route that cannot answer 202 */
function resolveRespondAsync({
  statusUrl,
  respondAsyncAfter: afterMs,
  resumable,
  recover,
  transaction,
}: z.output<typeof idempotencyOptions>): RespondAsync<never> | undefined {
  const impossible = (reason: string, hint: string) => {
    if (afterMs === undefined) return undefined
    const message = `idempotency(): Option "respondAsyncAfter" is ${afterMs} ms; ${reason}.`
    throw new PawlError('invalid-option', message, hint)
  }
  if (transaction) {
    return impossible(
      'with "transaction" the client must wait, since the response and the writes of the handler commit together',
      'Use steps instead, with resumable: true or recover: true.',
    )
  }
  if (!recover && !resumable) {
    return impossible(
      'after the 202, a crash would lose the result of a handler that may not run again',
      'Set recover: true (or resumable: true) if it is safe to run the handler again.',
    )
  }
  if (statusUrl) return { afterMs, statusUrl: statusUrl as RespondAsync<never>['statusUrl'] }
  return impossible(
    'without "statusUrl" the 202 has no URL for the result',
    "Mount pawl.statusHandler() and set its URL: statusUrl: '/operations/:id'.",
  )
}

/**
 * Wraps an option so that it throws if the app's function returns a promise. A promise is truthy, and its
 * JSON is `{}`: an async `skip` would skip every request, and an async `fingerprint` would make all
 * requests equal.
 */
function synchronous<Request>(name: string, option: (request: Request) => unknown) {
  return (request: Request): unknown => {
    const value = option(request)
    if (typeof (value as PromiseLike<unknown> | null | undefined)?.then !== 'function') return value
    Promise.resolve(value).catch(() => {}) // No other code handles its rejection.
    throw new PawlError(
      'invalid-option',
      `idempotency(): Option "${name}" returned a promise.`,
      'It must return its value synchronously. Do asynchronous work in a middleware before this one.',
    )
  }
}
