import type { IncomingMessage } from 'node:http'
import type { z } from 'zod'
import { PawlError } from '../errors/index.ts'
import { type ByteSize, type Duration, parseOptions } from '../options/parse-options.ts'
import type { TransactionHost } from '../store/database/transaction-host.ts'
import { type HeaderFilter, headerFilter } from './headers.ts'
import { idempotencyOptions } from './route-options-schema.ts'

/** Options of `idempotency()`, the same for every framework. */
export interface IdempotencyOptions<Request = IncomingMessage> {
  /**
   * Names the tenant, account or user whose key this is: 1 to 1024 characters. Set it wherever callers
   * are authenticated. Default: none; the caller's credentials (Authorization, else Cookie) are then
   * part of the fingerprint, so that somebody else's key is a 422 and never a replay.
   */
  scope?: (request: Request) => string | number
  /**
   * The name of the header that carries the key, or a function that finds it elsewhere (returning
   * undefined for none). Default `'Idempotency-Key'`.
   */
  key?: string | ((request: Request) => string | undefined)
  /** Which methods are protected; others pass untouched. Default `['POST', 'PATCH']`. */
  methods?: readonly string[] | 'all'
  /** Requests for which this returns true pass untouched. Default: none. */
  skip?: (request: Request) => boolean
  /** Refuse a request without a key (400). Default `false`: it passes untouched. */
  required?: boolean
  /**
   * Accept the key only as the structured-field string that the IETF draft asks for (`"abc"`, in
   * quotes). Default `false`: the bare token `abc` names the same key.
   */
  strict?: boolean
  /**
   * What makes two requests the same request, in place of method, URL, content type and body: a
   * string, bytes, or a JSON value. Pawl then does not read the body.
   */
  fingerprint?: (request: Request) => unknown
  /** How long a duplicate waits for the attempt that is running, before 409. Default `'5s'`. */
  wait?: Duration
  /**
   * Whether the handler may run again after an attempt that ended without an answer (crash, timeout)
   * or with a 5xx. Default: if it has recorded a step. Of a handler that recorded nothing, nobody can
   * know what it did: its 5xx is stored, and after a crash retries get a 409 (`outcome-unknown`).
   */
  resumable?: boolean
  /**
   * Finish the request also if its client never retries: the request is stored (encrypted where there
   * are encryptionKeys; without headers and query parameters whose names are those of credentials), and when its process has died, a process of the app hands
   * it to the app again, where recorded steps replay; see `pawl.recoverRequests`. It implies
   * `resumable`. After `attempts` (default 10), each later than the one before, it is parked: shown by
   * `pawl list`, and resumed by the client's retry or `pawl release`. Default `false`.
   */
  recover?: boolean | { attempts?: number }
  /**
   * Run the whole request in one database transaction: what the handler writes through
   * `execution.tx` commits together with the answer, before that leaves, exactly once. A 5xx, a throw
   * or a timeout rolls all of it back, and a retry runs it again. A response that streams commits before
   * its first byte. It holds a connection of the pool for as long as the handler runs; transactions leave
   * two to Pawl's own statements, and other requests wait for their turn (for `storeTimeout`, then 503).
   * Where such a handler records steps, the pool needs two connections at least. `{ on }` names an ORM's transaction, from `pawl/drizzle` and others.
   * Default `false`.
   */
  transaction?: boolean | { on: TransactionHost<unknown> }
  /**
   * How long an execution is kept; afterwards its key is new. A duration, or both parts. Default
   * `{ completed: '24h', unfinished: '72h' }`.
   */
  retention?: Duration | { completed?: Duration; unfinished?: Duration }
  /**
   * The largest response body that is stored, in bytes. A larger one flows through, and replays say
   * that it was not kept. At most `'256mb'`. Default `'1mb'`.
   */
  maxBody?: ByteSize
  /** The largest request body that Pawl reads for the fingerprint; larger is 413. Default `'10mb'`. */
  maxRequestBody?: ByteSize
  /**
   * Which response headers are stored: their names, or a function of the lower-case name. Default:
   * every end-to-end header but Set-Cookie. Hop-by-hop headers and Date never are.
   */
  storedHeaders?: readonly string[] | ((name: string) => boolean)
  /** How long the handler may take to answer, before 504. Default `'60s'`. */
  timeout?: Duration
  /**
   * When PostgreSQL cannot be reached: `'refuse'` answers 503, `'run'` runs the handler unprotected.
   * Default `'refuse'`.
   */
  onStoreError?: 'refuse' | 'run'
  /**
   * Where `pawl.statusHandler()` is mounted: a path or URL in which `:id` stands for the execution's id, or
   * a function of it. With it, a client that sends `Prefer: respond-async, wait=5` (RFC 7240) to a route
   * that is `resumable: true` or has `recover` is answered 202 when the handler takes longer, with
   * `Location`; the handler goes on. Elsewhere the preference is ignored. Default: none.
   */
  statusUrl?: string | ((id: string, request: Request) => string)
  /**
   * Answer 202 to every client when the handler has not answered within this time, as if it had asked for
   * it; of two times the shorter counts. `0`: at once. Needs `statusUrl`, and `resumable: true` or
   * `recover`; not possible with `transaction`. The handler's time is still limited by `timeout`. Default:
   * never.
   */
  respondAsyncAfter?: Duration
}

/** The options of one route, resolved. */
export interface RouteOptions<Request> {
  scope: ((request: Request) => unknown) | undefined
  /** A lower-case header name, or a function. */
  key: string | ((request: Request) => unknown)
  /** That name as the app wrote it, for messages; undefined if a function finds the key. */
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
  /** Undefined where a handler's answer cannot come later than the client's. */
  respondAsync: RespondAsync<Request> | undefined
}

/** How a client is answered before its handler. */
export interface RespondAsync<Request> {
  /** In ms; undefined: only a client that asks for it. */
  afterMs: number | undefined
  statusUrl: string | ((id: string, request: Request) => unknown)
}

/** @throws PawlError `invalid-option` */
export function routeOptions<Request>(
  options: IdempotencyOptions<Request> | undefined,
): RouteOptions<Request> {
  const parsed = parseOptions(idempotencyOptions, options, 'idempotency()')
  type Callback = (request: Request) => unknown
  const { scope, key, skip, fingerprint, statusUrl, respondAsyncAfter, ...rest } = parsed
  return {
    ...rest,
    respondAsync: respondAsyncOf(parsed) as RespondAsync<Request> | undefined,
    scope: scope && atOnce('scope', scope as Callback),
    key: typeof key === 'string' ? key.toLowerCase() : atOnce('key', key as Callback),
    keyHeader: typeof key === 'string' ? key : undefined,
    skip: skip && atOnce('skip', skip as Callback),
    fingerprint: fingerprint && atOnce('fingerprint', fingerprint as Callback),
    resumable: parsed.resumable,
    recover: parsed.recover || undefined,
    transaction: parsed.transaction || undefined,
    storedHeaders: headerFilter(parsed.storedHeaders as string[] | undefined),
  }
}

/** @throws PawlError `invalid-option` */
function respondAsyncOf({
  statusUrl,
  respondAsyncAfter: afterMs,
  resumable,
  recover,
  transaction,
}: z.output<typeof idempotencyOptions>): RespondAsync<never> | undefined {
  const impossible = (why: string, hint: string) => {
    if (afterMs === undefined) return undefined
    const message = `idempotency(): Option "respondAsyncAfter" is ${afterMs} ms; ${why}.`
    throw new PawlError('invalid-option', message, hint)
  }
  if (transaction) {
    return impossible(
      'with "transaction" the answer and what the handler writes commit together, while the client waits',
      'Use steps instead, with resumable: true or recover: true.',
    )
  }
  if (!recover && !resumable) {
    return impossible(
      'a handler that nobody may run again could be lost after its client was told to come back',
      'Say recover: true (or resumable: true) if running the handler again is safe.',
    )
  }
  if (statusUrl) return { afterMs, statusUrl: statusUrl as RespondAsync<never>['statusUrl'] }
  return impossible(
    'without "statusUrl" there is nowhere to send the client',
    "Mount pawl.statusHandler() and name its place: statusUrl: '/operations/:id'.",
  )
}

/**
 * A promise is truthy and looks like `{}`: without this, an async `skip` would skip every request, and
 * an async `fingerprint` make all of them the same.
 */
function atOnce<Request>(name: string, option: (request: Request) => unknown) {
  return (request: Request): unknown => {
    const value = option(request)
    if (typeof (value as PromiseLike<unknown> | null | undefined)?.then !== 'function') return value
    Promise.resolve(value).catch(() => {}) // Nobody waits for it.
    throw new PawlError(
      'invalid-option',
      `idempotency(): Option "${name}" returned a promise.`,
      'It must return its value at once; do what takes time in a middleware before this one.',
    )
  }
}
