import type { ServerResponse } from 'node:http'
import type { Attempt } from '../engine/attempt.ts'
import type { Execution } from '../engine/execution.ts'
import { executionId } from '../engine/execution-id.ts'
import { within } from '../engine/within.ts'
import { PawlError } from '../errors.ts'
import type { Pawl } from '../pawl.ts'
import {
  answerOf,
  bodyRefused,
  inProgress,
  keyMalformed,
  notCarriedOut,
  notRecorded,
  type RefusedBody,
  timedOut,
} from './answers.ts'
import { Capture, type Captured, type Verdict } from './capture.ts'
import { customFingerprint, fingerprint, NotJson } from './fingerprint.ts'
import { encodeHeaders, type Header } from './headers.ts'
import { checkKey, type ParsedKey, parseKeyHeader } from './idempotency-key.ts'
import { fate, isFailure, isResumable } from './policy.ts'
import { type IncomingRequest, readBody } from './request-body.ts'
import type { RouteOptions } from './route-options.ts'
import { replayAnswer, send } from './send.ts'

/** What an adapter for a framework on Node's http gives. */
export interface Exchange<Request extends IncomingRequest> {
  request: Request
  response: ServerResponse
  /** Path and query as the client sent them. */
  url: string
  /** Runs the handler; with an execution if the request is protected. */
  run(execution?: Execution): void
  /** Reports an error of the app's own making. */
  fail(error: unknown): void
}

/**
 * The key of a request: undefined if it carries none.
 * @throws whatever the app's `key` function throws
 */
export function keyOf<Request extends IncomingRequest>(
  request: Request,
  options: RouteOptions<Request>,
): ParsedKey | undefined {
  if (typeof options.key === 'function') {
    const key = options.key(request)
    return key === undefined || key === null ? undefined : checkKey(key)
  }
  const value = request.headers[options.key]
  if (value === undefined) return undefined
  // Where the request did not come over a socket (serverless adapters), or a middleware gave it its
  // key, there are no lines as they arrived.
  const lines = request.headersDistinct[options.key] ?? [value].flat()
  return parseKeyHeader(lines, options.strict)
}

/** Runs one keyed request from its key to its answer. Never rejects. */
export async function handleKeyed<Request extends IncomingRequest>(
  pawl: Pawl,
  options: RouteOptions<Request>,
  exchange: Exchange<Request>,
  parsed: ParsedKey,
): Promise<void> {
  const { request, response } = exchange
  try {
    if ('rule' in parsed) {
      send(response, keyMalformed(parsed.rule))
      return
    }
    const { engine } = pawl
    const scope = scopeOf(request, options)
    const id = executionId(scope, parsed.key)
    const print = await fingerprintOf(exchange, options)
    if (print === 'aborted') return // The client is gone in the middle of its request.
    if (typeof print === 'string') {
      // What is left of a body that is too large is not read.
      if (print === 'too-large') response.setHeader('Connection', 'close')
      send(response, bodyRefused(print, options.maxRequestBody))
      return
    }
    const { completed, unfinished } = options.retention
    const begun = await engine.begin({
      claim: {
        id,
        scope,
        key: parsed.key,
        name: `${request.method} ${withoutQuery(exchange.url)}`,
        fingerprint: print,
        retentionMs: unfinished,
      },
      retentionMs: completed,
      resumable: isResumable(options.resumable),
      waitMs: options.wait,
      signal: () => closeSignal(response),
    })
    if (begun.kind === 'run') runAttempt(pawl, options, exchange, begun.attempt)
    else if (!response.headersSent)
      send(response, answerOf(begun, `urn:uuid:${id}`, Boolean(options.scope)))
  } catch (error) {
    failBeforeRun(pawl, options, exchange, error)
  }
}

function runAttempt<Request extends IncomingRequest>(
  pawl: Pawl,
  options: RouteOptions<Request>,
  { response, run }: Exchange<Request>,
  attempt: Attempt,
): void {
  const instance = `urn:uuid:${attempt.execution.id}`
  const resumable = isResumable(options.resumable)

  /** What the app's function says; an outcome is worth more than a header on which it throws. */
  const keeps = ([name]: Header): boolean => {
    try {
      return options.storedHeaders(name.toLowerCase())
    } catch (error) {
      pawl.logger.warn('the storedHeaders option threw; the header is not stored', { error, name })
      return false
    }
  }

  const decide = async ({ status, headers, body }: Captured): Promise<Verdict> => {
    clearTimeout(timer)
    try {
      if (fate(status, resumable) === 'released') {
        await within(pawl.storeTimeoutMs, attempt.release('released'))
        return 'send'
      }
      const kept = headers.filter(keeps)
      const outcome = { status, headers: encodeHeaders(kept), body }
      const settled = await within(
        pawl.storeTimeoutMs,
        attempt.complete(outcome, isFailure(status)),
      )
      if (settled?.kind === 'done')
        return settled.own ? 'send' : replayAnswer(settled.outcome, instance)
      if (settled) return inProgress(instance)
      pawl.logger.warn('the store is away; an outcome is held until it is back', {
        execution: attempt.execution.id,
      })
    } catch (error) {
      pawl.logger.warn('an outcome could not be recorded', {
        error,
        execution: attempt.execution.id,
      })
    }
    return notRecorded(instance)
  }

  const capture = new Capture(response, options.maxBody, decide)
  const timer = setTimeout(async () => {
    if (capture.answered) return
    await within(pawl.storeTimeoutMs, attempt.interrupt()).catch(() => null)
    if (!capture.answered) capture.answer(timedOut(instance, resumable))
  }, options.timeout)
  timer.unref()
  run(attempt.execution)
}

function scopeOf<Request extends IncomingRequest>(
  request: Request,
  options: RouteOptions<Request>,
): string {
  if (!options.scope) return ''
  const value = options.scope(request)
  // NaN, or an id that was rounded, would be everybody's.
  const scope = Number.isSafeInteger(value) ? String(value) : value
  const valid = typeof scope === 'string' && scope !== '' && scope.length <= 1024
  if (valid && scope.isWellFormed() && !scope.includes('\0')) return scope
  throw new PawlError(
    'scope-invalid',
    `The scope option returned ${typeof scope === 'string' ? `a string of ${scope.length} characters` : String(scope)}.`,
    'It must name the tenant, account or user in 1 to 1024 characters; mount idempotency() behind authentication.',
  )
}

async function fingerprintOf<Request extends IncomingRequest>(
  { request, url }: Exchange<Request>,
  options: RouteOptions<Request>,
): Promise<Buffer | RefusedBody | 'aborted'> {
  // Without a scope a key is everybody's: who presents it becomes part of what it names.
  const { authorization, cookie } = request.headers
  const credentials = options.scope ? undefined : authorization || cookie
  if (options.fingerprint) {
    const value = options.fingerprint(request)
    return canonical(
      () => customFingerprint(value, credentials),
      (why) =>
        new PawlError(
          'fingerprint-invalid',
          `The fingerprint option returned what cannot be compared: ${why}.`,
          'It must return what makes two requests the same: a string, bytes, or a JSON value.',
        ),
    )
  }
  const body = await readBody(request, options.maxRequestBody)
  if (body === 'consumed') {
    throw new PawlError(
      'body-unreadable',
      'The request body was read before idempotency() and is not in req.body, so two different requests could look the same.',
      'Mount idempotency() before whatever reads the body, or give the fingerprint option.',
    )
  }
  if (typeof body === 'string') return body
  const what = { method: request.method ?? '', url, contentType: request.headers['content-type'] }
  return canonical(
    () => fingerprint({ ...what, body }, credentials),
    (why) =>
      new PawlError(
        'body-unreadable',
        `req.body cannot be compared: ${why}.`,
        'Mount idempotency() before the parser that made it, or give the fingerprint option.',
      ),
  )
}

/** @param mistake what to throw if the value is no JSON, which the client cannot help */
function canonical(
  print: () => Buffer,
  mistake: (why: string) => PawlError,
): Buffer | 'not-canonical' {
  try {
    return print()
  } catch (error) {
    if (error instanceof NotJson) throw mistake(error.message)
    return 'not-canonical'
  }
}

function failBeforeRun<Request extends IncomingRequest>(
  pawl: Pawl,
  options: RouteOptions<Request>,
  { response, run, fail }: Exchange<Request>,
  error: unknown,
): void {
  const code = error instanceof PawlError ? error.code : undefined
  if (response.headersSent) return
  if (code === 'stopping') response.setHeader('Connection', 'close')
  else if (code === 'store-unavailable' || code === 'store-refused') {
    pawl.logger.warn('the store cannot be reached', { error, onStoreError: options.onStoreError })
    if (options.onStoreError === 'run') {
      run()
      return
    }
  } else {
    fail(error)
    return
  }
  send(response, notCarriedOut())
}

function closeSignal(response: ServerResponse): AbortSignal {
  const controller = new AbortController()
  if (response.closed || response.destroyed) controller.abort()
  else response.once('close', () => controller.abort())
  return controller.signal
}

function withoutQuery(url: string): string {
  const query = url.indexOf('?')
  return query < 0 ? url : url.slice(0, query)
}
