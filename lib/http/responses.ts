import { randomUUID } from 'node:crypto'
import type { Begun } from '../engine/engine.ts'
import type { Outcome } from '../store/execution-store.ts'
import { decodeHeaders, type Header } from './headers.ts'
import { type Problem, type ProblemCode, problem } from './problem.ts'

/** A whole response of Pawl's own making. */
export interface Answer {
  status: number
  headers: Header[]
  body: Buffer
  /** Headers that browsers may read, beside those of all answers. */
  exposed?: readonly string[]
}

/** What browsers may read only if a response says so (Fetch standard, section 3.3.4). */
const EXPOSED = ['Idempotent-Replayed', 'Retry-After']

// What describes a body that is not there any more.
const OF_THE_BODY =
  /^(content-(length|type|encoding|range|disposition|digest|md5)|etag|accept-ranges)$/i

/** Why a request body is refused. */
export type RefusedBody = 'too-large' | 'not-canonical'

/** What a call that does not run is told. */
export function answerOf(
  begun: Exclude<Begun, { kind: 'run' }>,
  instance: string,
  scoped: boolean,
): Answer {
  switch (begun.kind) {
    case 'replay':
      return replayAnswer(begun.outcome, instance)
    case 'running':
      return inProgress(instance)
    case 'mismatch':
      return mismatch(instance, scoped)
    case 'unknown':
      return answer(
        'outcome-unknown',
        'An earlier attempt at this request ended without an answer, and nobody can know what it did. Do not retry automatically, and do not use a new key before it is clear: look up the result of the operation, or ask whoever runs this service to settle it (pawl release).',
        instance,
      )
  }
}

export function keyMissing(header: string | undefined): Answer {
  const what = header ? `the ${header} header` : 'an idempotency key'
  return answer(
    'key-missing',
    `Send this request again with ${what}: a value that is unique to this operation, such as a UUID, and the same for each retry of it.`,
  )
}

export function keyMalformed(rule: string): Answer {
  return answer(
    'key-malformed',
    `The idempotency key was refused: ${rule}. Correct the key and send the request again.`,
  )
}

export function bodyRefused(why: RefusedBody, maxBytes: number): Answer {
  return why === 'too-large'
    ? answer(
        'body-too-large',
        `A request with an idempotency key may have a body of at most ${maxBytes} bytes here.`,
      )
    : answer(
        'body-unreadable',
        'The body has no canonical JSON form (RFC 8785): it contains a lone surrogate, or is nested too deeply. Correct it and send the request again.',
      )
}

export function inProgress(instance: string): Answer {
  return answer(
    'in-progress',
    'An attempt at this request is still running. Wait as long as Retry-After says and send the same request with the same key.',
    instance,
  )
}

export function timedOut(instance: string, resumable: boolean): Answer {
  return answer(
    'timed-out',
    resumable
      ? 'The request was not finished in time. Retry with the same key and the same request.'
      : 'The request was not finished in time, and it is not known what it did. Retry with the same key: you get its answer as soon as there is one, and nothing runs twice.',
    instance,
  )
}

/** Where the framework leaves it to Pawl what a handler that throws has answered. */
export function handlerFailed(instance?: string): Answer {
  return answer(
    'handler-failed',
    'The server failed while it carried out the request. Retrying with the same key is safe, and tells whether that is final.',
    instance,
  )
}

/** The store went away before the handler ran. */
export function notCarriedOut(): Answer {
  return answer(
    'store-unavailable',
    'The request was not carried out. Wait as long as Retry-After says and send the same request with the same key.',
  )
}

/** The store went away after the handler ran. */
export function notRecorded(instance: string): Answer {
  return answer(
    'store-unavailable',
    'The request was carried out, but its outcome could not be recorded yet. Retry with the same key and the same request: you will get the outcome, and nothing runs twice.',
    instance,
  )
}

/** The same where there is none and where it is somebody else's. */
export function notFound(): Answer {
  return answer(
    'execution-not-found',
    'There is no execution of that id here, or it is not yours, or it has expired.',
  )
}

export function methodNotAllowed(allowed: string): Answer {
  const refused = answer('method-not-allowed', `Only ${allowed} can be asked here.`)
  return { ...refused, headers: [...refused.headers, ['Allow', allowed]] }
}

/** The store went away while somebody asked how an execution stands. */
export function statusUnknown(): Answer {
  return answer(
    'store-unavailable',
    'How the execution stands cannot be read now. Ask again after as long as Retry-After says.',
  )
}

function mismatch(instance: string, scoped: boolean): Answer {
  const credentials = scoped
    ? ''
    : ' A request with other credentials counts as another request; if they change between retries, the server should set the scope option.'
  return answer(
    'request-mismatch',
    `This key was used with another method, URL, content type or body. Send the original request, or a new key for a new operation.${credentials}`,
    instance,
  )
}

/** @param instance names the execution; without one, this occurrence gets a name of its own */
function answer(
  code: ProblemCode,
  detail: string,
  instance: string = `urn:uuid:${randomUUID()}`,
): Answer {
  return problemAnswer(problem(code, detail, instance))
}

/** @param instance names the execution, for the problem that stands in for a body that was not kept */
export function replayAnswer(outcome: Outcome, instance: string): Answer {
  const { status } = outcome
  const stored = decodeHeaders(outcome.headers)
  const replayed: Header = ['Idempotent-Replayed', 'true']
  if (outcome.body) return { status, headers: [...stored, replayed], body: outcome.body }
  const detail =
    'The request was carried out with this status and these headers. Its response body was too large to store, or a stream, and cannot be sent again. Do not repeat the request with a new key.'
  const document = problemAnswer(problem('body-not-kept', detail, instance, status))
  return {
    ...document,
    headers: [...stored.filter(([name]) => !OF_THE_BODY.test(name)), ...document.headers, replayed],
  }
}

/** An answer after which the connection is closed. */
export function closing(answer: Answer): Answer {
  return { ...answer, headers: [...answer.headers, ['Connection', 'close']] }
}

/**
 * The Access-Control-Expose-Headers of a response that browsers may read.
 * @param given what it says already
 */
export function exposedHeaders(given: unknown, { exposed = [] }: Answer): string {
  const listed = String(given ?? '')
    .split(',')
    .map((name) => name.trim())
  const lower = new Set(listed.map((name) => name.toLowerCase()))
  const missing = [...EXPOSED, ...exposed].filter((name) => !lower.has(name.toLowerCase()))
  return [...listed.filter(Boolean), ...missing].join(', ')
}

function problemAnswer({ status, headers, body }: Problem): Answer {
  return { status, headers: Object.entries(headers), body }
}
