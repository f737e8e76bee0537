import type { Attempt } from '../engine/attempt.ts'
import { executionId } from '../engine/execution-id.ts'
import { PawlError } from '../errors/index.ts'
import type { Recovery } from '../store/execution-store.ts'
import {
  type Answer,
  answerOf,
  bodyRefused,
  closing,
  keyMalformed,
  notCarriedOut,
  type RefusedBody,
} from './responses.ts'
import type { Body } from './fingerprint.ts'
import type { ParsedKey } from './idempotency-key.ts'
import { fingerprintOf, scopeOf } from './request-identity.ts'
import type { BodyFailure, RequestView } from './request-view.ts'
import { type Later, laterOf } from './async-response.ts'
import type { RouteOptions } from './route-options.ts'
import type { RequestRuntime } from './runtime.ts'
import { storedRequest } from './stored-request.ts'

/** An attempt whose handler runs. */
export interface Admitted {
  attempt: Attempt
  /** How its client is answered if that takes long; undefined: it waits. */
  later?: Later | undefined
}

/** What is to be done with a keyed request. */
export type Admission =
  | ({ kind: 'run' } & Admitted)
  /** The handler runs without protection: the store is away, and the app chose so. */
  | { kind: 'unprotected' }
  | { kind: 'answer'; answer: Answer }
  /** The client is gone in the middle of its request: nobody to answer, nothing to run. */
  | { kind: 'gone' }

/**
 * Decides about a keyed request before its handler.
 *
 * @param request the framework's own, for the app's functions
 * @throws PawlError `not-started`, `scope-invalid`, `fingerprint-invalid`, `body-unreadable`,
 * `invalid-option`, and what the app's functions throw: mistakes of the app, for its error handler
 */
export async function admit<Request>(
  runtime: RequestRuntime,
  options: RouteOptions<Request>,
  request: Request,
  view: RequestView,
  parsed: ParsedKey,
): Promise<Admission> {
  const recovered = view.recovered(runtime)
  if (recovered) return { kind: 'run', attempt: recovered }
  if ('rule' in parsed) return { kind: 'answer', answer: keyMalformed(parsed.rule) }
  try {
    const { engine } = runtime
    const { key } = parsed
    const scope = scopeOf(options, request)
    // Once: looking at what has arrived counts as reading, and the second time it would be gone.
    let read: Promise<Body | BodyFailure> | undefined
    const readBody = () => {
      read ??= view.body(options.maxRequestBody)
      return read
    }
    const print = await fingerprintOf(options, request, view, readBody)
    if (typeof print === 'string') return withoutBody(print, options)
    const id = executionId(scope, key)
    const recovery = options.recover ? await recoveryOf(runtime, options, id, view, readBody) : null
    if (typeof recovery === 'string') return withoutBody(recovery, options)
    const later = laterOf(options, request, view, id)
    const begun = await engine.begin({
      claim: {
        id,
        scope,
        key,
        name: `${view.method} ${withoutQuery(view.url)}`,
        fingerprint: print,
        retentionMs: options.retention.unfinished,
        recovery,
      },
      // What a transaction did not commit, it did not do.
      resumable: options.transaction || options.recover ? true : options.resumable,
      waitMs: later ? later.afterMs : options.wait,
      signal: () => view.gone(),
    })
    if (begun.kind === 'run') return { ...begun, later }
    if (begun.kind === 'running' && later) return { kind: 'answer', answer: later.answer }
    return { kind: 'answer', answer: answerOf(begun, `urn:uuid:${id}`, Boolean(options.scope)) }
  } catch (error) {
    return withoutStore(runtime, options, error)
  }
}

/** @throws the error, if it is not about the store */
function withoutStore(
  runtime: RequestRuntime,
  { onStoreError }: Pick<RouteOptions<never>, 'onStoreError'>,
  error: unknown,
): Admission {
  const code = error instanceof PawlError ? error.code : undefined
  if (code === 'decryption-failed') {
    // Whatever else the app chose: the handler must not run without what it has recorded.
    runtime.logger.warn('what is stored of a request cannot be decrypted', { error })
    return { kind: 'answer', answer: notCarriedOut() }
  }
  if (code === 'stopping') return { kind: 'answer', answer: closing(notCarriedOut()) }
  if (code !== 'store-unavailable' && code !== 'store-refused') throw error
  runtime.logger.warn('the store cannot be reached', { error, onStoreError })
  if (onStoreError === 'run') return { kind: 'unprotected' }
  return { kind: 'answer', answer: notCarriedOut() }
}

function withoutBody(
  why: RefusedBody | 'aborted',
  { maxRequestBody }: Pick<RouteOptions<never>, 'maxRequestBody'>,
): Admission {
  if (why === 'aborted') return { kind: 'gone' }
  const refused = bodyRefused(why, maxRequestBody)
  // What is left of a body that is too large is not read.
  return { kind: 'answer', answer: why === 'too-large' ? closing(refused) : refused }
}

/** @throws PawlError `recovery-impossible` */
async function recoveryOf(
  runtime: RequestRuntime,
  { recover }: Pick<RouteOptions<never>, 'recover'>,
  id: string,
  view: RequestView,
  readBody: () => Promise<Body | BodyFailure>,
): Promise<Recovery | 'too-large' | 'aborted'> {
  runtime.checkRecovery()
  const body = await readBody()
  if (body === 'too-large' || body === 'aborted') return body
  const input = storedRequest(view, body)
  return { input: runtime.engine.seal({ id, input }), attempts: recover?.attempts ?? 0 }
}

function withoutQuery(url: string): string {
  const query = url.indexOf('?')
  return query < 0 ? url : url.slice(0, query)
}
