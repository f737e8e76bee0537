import type { Attempt } from '../engine/attempt.ts'
import { executionId } from '../engine/execution-id.ts'
import { PawlError } from '../errors.ts'
import type { Pawl } from '../pawl.ts'
import type { Recovery } from '../store/store.ts'
import {
  type Answer,
  answerOf,
  bodyRefused,
  closing,
  keyMalformed,
  notCarriedOut,
} from './answers.ts'
import type { ParsedKey } from './idempotency-key.ts'
import { fingerprintOf, scopeOf } from './identify.ts'
import { storedRequest } from './recovery.ts'
import type { RequestView } from './request-view.ts'
import type { RouteOptions } from './route-options.ts'

/** What is to be done with a keyed request. */
export type Admission =
  /** The handler runs, as this attempt. */
  | { kind: 'run'; attempt: Attempt }
  /** The handler runs without protection: the store is away, and the app chose so. */
  | { kind: 'unprotected' }
  | { kind: 'answer'; answer: Answer }
  /** The client is gone in the middle of its request: nobody to answer, nothing to run. */
  | { kind: 'gone' }

/**
 * Decides about a keyed request before its handler.
 *
 * @param request the framework's own, for the app's functions
 * @throws PawlError `not-started`, `scope-invalid`, `fingerprint-invalid`, `body-unreadable`, and what
 * the app's functions throw: mistakes of the app, for its error handler
 */
export async function admit<Request>(
  pawl: Pawl,
  options: RouteOptions<Request>,
  request: Request,
  view: RequestView,
  parsed: ParsedKey,
): Promise<Admission> {
  const recovered = view.recovered(pawl)
  if (recovered) return { kind: 'run', attempt: recovered }
  if ('rule' in parsed) return { kind: 'answer', answer: keyMalformed(parsed.rule) }
  try {
    const { engine } = pawl
    const { key } = parsed
    const scope = scopeOf(options, request)
    const print = await fingerprintOf(options, request, view)
    if (print === 'aborted') return { kind: 'gone' }
    if (typeof print === 'string') {
      const refused = bodyRefused(print, options.maxRequestBody)
      // What is left of a body that is too large is not read.
      return { kind: 'answer', answer: print === 'too-large' ? closing(refused) : refused }
    }
    const id = executionId(scope, key)
    const begun = await engine.begin({
      claim: {
        id,
        scope,
        key,
        name: `${view.method} ${withoutQuery(view.url)}`,
        fingerprint: print,
        retentionMs: options.retention.unfinished,
        recovery: options.recover ? await recoveryOf(pawl, options, id, view) : null,
      },
      // What a transaction did not commit, it did not do.
      resumable: options.transaction || options.recover ? true : options.resumable,
      waitMs: options.wait,
      signal: () => view.gone(),
    })
    if (begun.kind === 'run') return begun
    return { kind: 'answer', answer: answerOf(begun, `urn:uuid:${id}`, Boolean(options.scope)) }
  } catch (error) {
    return withoutStore(pawl, options, error)
  }
}

/** @throws the error, if it is not about the store */
function withoutStore(
  pawl: Pawl,
  { onStoreError }: Pick<RouteOptions<never>, 'onStoreError'>,
  error: unknown,
): Admission {
  const code = error instanceof PawlError ? error.code : undefined
  if (code === 'decryption-failed') {
    // Whatever else the app chose: there is an outcome, so the handler must not run.
    pawl.logger.warn('an outcome cannot be decrypted', { error })
    return { kind: 'answer', answer: notCarriedOut() }
  }
  if (code === 'stopping') return { kind: 'answer', answer: closing(notCarriedOut()) }
  if (code !== 'store-unavailable' && code !== 'store-refused') throw error
  pawl.logger.warn('the store cannot be reached', { error, onStoreError })
  if (onStoreError === 'run') return { kind: 'unprotected' }
  return { kind: 'answer', answer: notCarriedOut() }
}

/** @throws PawlError `recovery-impossible` */
async function recoveryOf(
  pawl: Pawl,
  { maxRequestBody, recover }: Pick<RouteOptions<never>, 'maxRequestBody' | 'recover'>,
  id: string,
  view: RequestView,
): Promise<Recovery> {
  pawl.checkRecovery()
  const input = storedRequest(view, await view.body(maxRequestBody))
  return { input: pawl.engine.seal({ id, input }), attempts: recover?.attempts ?? 0 }
}

function withoutQuery(url: string): string {
  const query = url.indexOf('?')
  return query < 0 ? url : url.slice(0, query)
}
