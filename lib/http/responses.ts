/** Builds the responses that Pawl sends itself: problem documents, and replays of recorded responses. */

import { randomUUID } from 'node:crypto'
import type { BeginResult } from '../engine/begin-options.ts'
import type { Outcome } from '../store/execution-store.ts'
import { decodeHeaders, type Header } from './headers.ts'
import { createProblem, executionUri, type Problem, type ProblemCode } from './problem.ts'

/** A complete response that Pawl sends in place of the handler. */
export interface PawlResponse {
  status: number
  headers: Header[]
  body: Buffer
  /** Names of headers that scripts in browsers may read, besides those in `ALWAYS_EXPOSED`. */
  exposedHeaders?: readonly string[]
}

/** Headers of Pawl that scripts in browsers may read only if the response lists them (Fetch standard, section 3.3.4). */
const ALWAYS_EXPOSED = ['Idempotent-Replayed', 'Retry-After']

/** Headers that describe a body, and would be wrong on a replay without it. */
const BODY_HEADERS =
  /^(content-(length|type|encoding|range|disposition|digest|md5)|etag|accept-ranges)$/i

/** Why a request body is refused. */
export type BodyRefusal = 'too-large' | 'not-canonical'

/** The response to a request whose execution exists already, and whose handler does not run now. */
export function responseForExistingExecution(
  begun: Exclude<BeginResult, { kind: 'run' }>,
  instance: string,
  scoped: boolean,
): PawlResponse {
  switch (begun.kind) {
    case 'replay':
      return replayResponse(begun.outcome, instance)
    case 'running':
      return inProgressResponse(instance)
    case 'mismatch':
      return mismatchResponse(instance, scoped)
    case 'unknown':
      return problemResponse(
        'outcome-unknown',
        'An earlier attempt at this request crashed or ran out of time before its response was recorded, so its effects are unknown. Do not retry automatically, and do not use a new key yet. Look up the result of the operation, or ask the operator of this service to settle it (pawl release).',
        instance,
      )
  }
}

export function keyMissingResponse(header: string | undefined): PawlResponse {
  const source = header ? `the ${header} header` : 'an idempotency key'
  return problemResponse(
    'key-missing',
    `Send this request again with ${source}. Use a value that is unique to this operation, such as a UUID, and send the same value with each retry.`,
  )
}

export function keyMalformedResponse(brokenRule: string): PawlResponse {
  return problemResponse(
    'key-malformed',
    `Correct the idempotency key and send the request again. The rule that it breaks: ${brokenRule}.`,
  )
}

export function bodyRefusedResponse(reason: BodyRefusal, maxBytes: number): PawlResponse {
  return reason === 'too-large'
    ? problemResponse(
        'body-too-large',
        `Send a body of at most ${maxBytes} bytes: that is the limit here for a request with an idempotency key.`,
      )
    : problemResponse(
        'body-unreadable',
        'Correct the body and send the request again. It contains a lone surrogate or is nested too deeply, so it has no canonical JSON form (RFC 8785).',
      )
}

export function inProgressResponse(instance: string): PawlResponse {
  return problemResponse(
    'in-progress',
    'An attempt at this request is still running. Wait for the time in Retry-After, then send the same request with the same key.',
    instance,
  )
}

export function timedOutResponse(instance: string, resumable: boolean): PawlResponse {
  return problemResponse(
    'timed-out',
    resumable
      ? 'The request did not finish in time. Send the same request with the same key to continue it.'
      : 'The request did not finish in time, and its effects are not known yet. Send the same request with the same key: you get its response once there is one, and nothing runs twice.',
    instance,
  )
}

/** The 500 for a handler that threw, where the framework has no error handler of its own. */
export function handlerFailedResponse(instance?: string): PawlResponse {
  return problemResponse(
    'handler-failed',
    'The server failed while it carried out the request. Send the same request with the same key: that is safe, and shows whether the failure is final.',
    instance,
  )
}

/** The 503 for a request that had no effect, because the store was unavailable or Pawl is stopping. */
export function notCarriedOutResponse(): PawlResponse {
  return problemResponse(
    'store-unavailable',
    'The request was not carried out. Wait for the time in Retry-After, then send the same request with the same key.',
  )
}

/** The 503 for a request whose handler ran, and whose outcome the store could not record yet. */
export function notRecordedResponse(instance: string): PawlResponse {
  return problemResponse(
    'store-unavailable',
    'The request was carried out, but its response could not be recorded yet. Send the same request with the same key: you get the response, and nothing runs twice.',
    instance,
  )
}

/** The 404 for an execution that does not exist, or that the caller may not see; it does not say which. */
export function executionNotFoundResponse(): PawlResponse {
  return problemResponse(
    'execution-not-found',
    'Check the id. There is no execution with this id, or it belongs to another caller, or it has expired.',
  )
}

export function methodNotAllowedResponse(allowed: string): PawlResponse {
  const refused = problemResponse('method-not-allowed', `Use one of these methods: ${allowed}.`)
  return { ...refused, headers: [...refused.headers, ['Allow', allowed]] }
}

/** The 503 for a status request while the store is unavailable. */
export function statusUnavailableResponse(): PawlResponse {
  return problemResponse(
    'store-unavailable',
    'The status of the execution cannot be read now. Wait for the time in Retry-After, then ask again.',
  )
}

function mismatchResponse(instance: string, scoped: boolean): PawlResponse {
  const credentials = scoped
    ? ''
    : ' Other credentials also count as another request. If credentials change between retries, the server should set the scope option.'
  return problemResponse(
    'request-mismatch',
    `Send the original request with this key, or use a new key for a new operation. This key was used with another method, URL, content type or body.${credentials}`,
    instance,
  )
}

/** @param instance the URI of the execution. Default: a new URI, for this occurrence of the problem */
function problemResponse(
  code: ProblemCode,
  detail: string,
  instance: string = executionUri(randomUUID()),
): PawlResponse {
  return problemAnswer(createProblem(code, detail, instance))
}

/**
 * Builds a recorded response again. If its body was not stored, a `body-not-kept` problem takes the body's place.
 * @param instance the URI of the execution, for that problem
 */
export function replayResponse(outcome: Outcome, instance: string): PawlResponse {
  const { status } = outcome
  const stored = decodeHeaders(outcome.headers)
  const replayed: Header = ['Idempotent-Replayed', 'true']
  if (outcome.body) return { status, headers: [...stored, replayed], body: outcome.body }
  const detail =
    'Do not repeat the request with a new key: it was carried out, with this status and these headers. Its response body was too large to store, or a stream, and cannot be sent again.'
  const document = problemAnswer(createProblem('body-not-kept', detail, instance, status))
  return {
    ...document,
    headers: [
      ...stored.filter(([name]) => !BODY_HEADERS.test(name)),
      ...document.headers,
      replayed,
    ],
  }
}

/** The same response with the header that closes the connection after it. */
export function withConnectionClose(response: PawlResponse): PawlResponse {
  return { ...response, headers: [...response.headers, ['Connection', 'close']] }
}

/**
 * The Access-Control-Expose-Headers value for a response to a CORS request: the present value, and Pawl's headers.
 * @param given the present value
 */
export function corsExposedHeaders(given: unknown, { exposedHeaders = [] }: PawlResponse): string {
  const listed = String(given ?? '')
    .split(',')
    .map((name) => name.trim())
  const lower = new Set(listed.map((name) => name.toLowerCase()))
  const missing = [...ALWAYS_EXPOSED, ...exposedHeaders].filter(
    (name) => !lower.has(name.toLowerCase()),
  )
  return [...listed.filter(Boolean), ...missing].join(', ')
}

function problemAnswer({ status, headers, body }: Problem): PawlResponse {
  return { status, headers: Object.entries(headers), body }
}
