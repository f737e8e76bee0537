import { randomUUID } from 'node:crypto'
import type { Begun } from '../engine/engine.ts'
import { type ProblemCode, problem } from './problem.ts'
import { type Answer, problemAnswer, replayAnswer } from './send.ts'

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
