/** Decides, before the handler runs, whether a request with an idempotency key runs or is answered by Pawl. */

import type { Attempt } from '../engine/attempt.ts'
import { executionId } from '../engine/execution-id.ts'
import { PawlError } from '../errors/index.ts'
import type { Recovery } from '../store/execution-store.ts'
import { type AsyncResponse, asyncResponseFor } from './async-response.ts'
import type { RequestBody } from './fingerprint.ts'
import type { ParsedKey } from './idempotency-key.ts'
import { executionUri } from './problem.ts'
import { resolveFingerprint, resolveScope } from './request-identity.ts'
import type { BodyFailure, RequestView } from './request-view.ts'
import {
  type BodyRefusal,
  bodyRefusedResponse,
  keyMalformedResponse,
  notCarriedOutResponse,
  type PawlResponse,
  responseForExistingExecution,
  withConnectionClose,
} from './responses.ts'
import type { RouteOptions } from './route-options.ts'
import type { RequestRuntime } from './runtime.ts'
import { encodeStoredRequest } from './stored-request.ts'

/** An attempt whose handler is to run. */
export interface AdmittedAttempt {
  attempt: Attempt
  /** The 202 that the client gets if the handler takes long; undefined: the client waits for the handler. */
  asyncResponse?: AsyncResponse | undefined
}

/** What the adapter must do with a keyed request. */
export type Admission =
  | ({ kind: 'run' } & AdmittedAttempt)
  /** Run the handler without protection: the store is unavailable, and the app chose `onStoreError: 'run'`. */
  | { kind: 'unprotected' }
  | { kind: 'respond'; response: PawlResponse }
  /** The client disconnected before its whole request arrived: run nothing and send nothing. */
  | { kind: 'disconnected' }

/**
 * Claims the execution that a request's key names, and decides from its state what the adapter does.
 *
 * @param request the framework's request object, which the functions in the options receive
 * @throws PawlError `not-started`, `scope-invalid`, `fingerprint-invalid`, `body-unreadable`,
 * `invalid-option`, and errors of the functions in the options. These are the app's mistakes, so they
 * go to its error handler.
 */
export async function admitRequest<Request>(
  runtime: RequestRuntime,
  options: RouteOptions<Request>,
  request: Request,
  view: RequestView,
  parsed: ParsedKey,
): Promise<Admission> {
  const recovered = view.recoveredAttempt(runtime)
  if (recovered) return { kind: 'run', attempt: recovered }
  if ('brokenRule' in parsed) {
    return { kind: 'respond', response: keyMalformedResponse(parsed.brokenRule) }
  }
  try {
    const { engine } = runtime
    const { key } = parsed
    const scope = resolveScope(options, request)
    // At most once: after the first read, Node reports the body as read, and a second read would fail.
    let read: Promise<RequestBody | BodyFailure> | undefined
    const readBody = () => {
      read ??= view.readBody(options.maxRequestBody)
      return read
    }
    const fingerprint = await resolveFingerprint(options, request, view, readBody)
    if (typeof fingerprint === 'string') return admissionWithoutBody(fingerprint, options)
    const id = executionId(scope, key)
    const recovery = options.recover
      ? await prepareRecovery(runtime, options, id, view, readBody)
      : null
    if (typeof recovery === 'string') return admissionWithoutBody(recovery, options)
    const asyncResponse = asyncResponseFor(options, request, view, id)
    const begun = await engine.begin({
      claim: {
        id,
        scope,
        key,
        name: `${view.method} ${withoutQuery(view.url)}`,
        fingerprint,
        retentionMs: options.retention.unfinished,
        recovery,
      },
      // Without a commit, a transaction has no effects, so the handler can always run again.
      resumable: options.transaction || options.recover ? true : options.resumable,
      waitMs: asyncResponse ? asyncResponse.afterMs : options.wait,
      signal: () => view.disconnectSignal(),
    })
    if (begun.kind === 'run') return { ...begun, asyncResponse }
    if (begun.kind === 'running' && asyncResponse) {
      return { kind: 'respond', response: asyncResponse.response }
    }
    const response = responseForExistingExecution(begun, executionUri(id), Boolean(options.scope))
    return { kind: 'respond', response }
  } catch (error) {
    return admissionAfterError(runtime, options, error)
  }
}

/**
 * Decides what happens to a request whose claim failed.
 * @throws the error, unless the store or the shutdown caused it
 */
function admissionAfterError(
  runtime: RequestRuntime,
  { onStoreError }: Pick<RouteOptions<never>, 'onStoreError'>,
  error: unknown,
): Admission {
  const code = error instanceof PawlError ? error.code : undefined
  if (code === 'decryption-failed') {
    // Also with `onStoreError: 'run'`: the handler must not run again without its recorded steps.
    runtime.logger.warn('the stored data of a request cannot be decrypted', { error })
    return { kind: 'respond', response: notCarriedOutResponse() }
  }
  if (code === 'stopping') {
    return { kind: 'respond', response: withConnectionClose(notCarriedOutResponse()) }
  }
  if (code !== 'store-unavailable' && code !== 'store-refused') throw error
  runtime.logger.warn('the store cannot be reached', { error, onStoreError })
  if (onStoreError === 'run') return { kind: 'unprotected' }
  return { kind: 'respond', response: notCarriedOutResponse() }
}

function admissionWithoutBody(
  reason: BodyRefusal | 'aborted',
  { maxRequestBody }: Pick<RouteOptions<never>, 'maxRequestBody'>,
): Admission {
  if (reason === 'aborted') return { kind: 'disconnected' }
  const refused = bodyRefusedResponse(reason, maxRequestBody)
  // The rest of a body that is too large stays unread, so the connection cannot serve another request.
  return {
    kind: 'respond',
    response: reason === 'too-large' ? withConnectionClose(refused) : refused,
  }
}

/**
 * Encodes and encrypts the request, so that a worker can give it to the app again after a crash.
 * @throws PawlError `recovery-impossible`
 */
async function prepareRecovery(
  runtime: RequestRuntime,
  { recover }: Pick<RouteOptions<never>, 'recover'>,
  id: string,
  view: RequestView,
  readBody: () => Promise<RequestBody | BodyFailure>,
): Promise<Recovery | 'too-large' | 'aborted'> {
  runtime.checkRecovery()
  const body = await readBody()
  if (body === 'too-large' || body === 'aborted') return body
  const input = encodeStoredRequest(view, body)
  return { input: runtime.engine.encryptInput({ id, input }), maxAttempts: recover?.attempts ?? 0 }
}

function withoutQuery(url: string): string {
  const query = url.indexOf('?')
  return query < 0 ? url : url.slice(0, query)
}
