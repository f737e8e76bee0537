/** `idempotency` for handlers that take a Request and return a Response (Next.js, SvelteKit, …). */

import type { Execution } from '../../engine/execution.ts'
import { PawlError } from '../../errors/index.ts'
import { admitRequest } from '../../http/admit-request.ts'
import { matchRequest } from '../../http/match-request.ts'
import { type IdempotencyOptions, routeOptions } from '../../http/route-options.ts'
import { type PawlLike, runtimeOf } from '../../http/runtime.ts'
import { FetchRequestView } from './fetch-request-view.ts'
import { toResponse } from './response.ts'
import { runFetchAttempt } from './run-attempt.ts'

export type { IdempotencyOptions } from '../../http/route-options.ts'

/** The `request` option: required if the handler's first argument is not the Request itself. */
type FindRequest<Subject> = Subject extends Request
  ? { request?: undefined }
  : {
      /** Returns the Request, given the handler's first argument. */
      request: (subject: Subject) => Request
    }

/** Options of {@link idempotency}; their functions receive the handler's first argument. */
export type FetchIdempotencyOptions<Subject = Request> = IdempotencyOptions<Subject> &
  FindRequest<Subject>

type Handler<Subject, Rest extends unknown[]> = (
  subject: Subject,
  ...rest: Rest
) => Response | Promise<Response>

const executions = new WeakMap<Request, Execution>()

/**
 * Protects handlers that take a Request and return a Response: a request with an idempotency key runs
 * once, and its retries get the stored response.
 *
 * ```ts
 * const protect = idempotency(pawl, { scope: (request) => userOf(request) })
 * export const POST = protect(async (request) => Response.json(await createOrder(request)))
 * ```
 *
 * If the handler throws, the response is a 500 (`handler-failed`), which is treated like any other 5xx; the
 * error goes to Pawl's logger as a warning. Mistakes of the app (`not-started`, `scope-invalid`,
 * `body-unreadable`) reject with a PawlError.
 *
 * @throws PawlError `invalid-option`
 */
export function idempotency<Subject = Request>(
  pawl: PawlLike,
  ...[given]: Subject extends Request
    ? [options?: FetchIdempotencyOptions<Subject>]
    : [options: FetchIdempotencyOptions<Subject>]
): <Rest extends unknown[]>(
  handler: Handler<Subject, Rest>,
) => (subject: Subject, ...rest: Rest) => Promise<Response> {
  const runtime = runtimeOf(pawl)
  const { request: find, ...common } = (given ?? {}) as IdempotencyOptions<Subject> & {
    request?: (subject: Subject) => Request
  }
  const options = routeOptions(common as IdempotencyOptions<Subject>)
  if (options.recover) throw recoverNotSupported()
  if (find !== undefined && typeof find !== 'function') throw requestNotFunction()

  return (handler) =>
    async (subject, ...rest) => {
      const request = find ? find(subject) : (subject as Request)
      if (executions.has(request)) return handler(subject, ...rest)
      const view = new FetchRequestView(request)
      const match = matchRequest(runtime, options, subject, view)
      if (match.kind === 'pass') return handler(subject, ...rest)
      if (match.kind === 'respond') return toResponse(match.response)
      const admission = await admitRequest(runtime, options, subject, view, match.key)
      if (admission.kind === 'unprotected') return handler(subject, ...rest)
      if (admission.kind === 'respond') return toResponse(admission.response)
      // No client receives this response.
      if (admission.kind === 'disconnected') return new Response(null, { status: 400 })
      executions.set(request, admission.attempt.execution)
      const handle = async () => handler(subject, ...rest)
      return runFetchAttempt({ runtime, options, admitted: admission, handle })
    }
}

/** The execution that a request belongs to; undefined if the request is not protected. */
export function executionOf(request: Request): Execution | undefined {
  return executions.get(request)
}

function recoverNotSupported(): PawlError {
  return new PawlError(
    'invalid-option',
    'idempotency(): Option "recover" is not supported for Fetch handlers.',
    'Recovery delivers requests through Node: use it with Express, Fastify, Koa, Nest, or Hono on Node.',
  )
}

function requestNotFunction(): PawlError {
  return new PawlError(
    'invalid-option',
    'idempotency(): Option "request" is not a function.',
    'It must be a function that returns the Request, given the first argument of the handler.',
  )
}
