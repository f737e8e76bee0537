import type { Execution } from '../../engine/execution.ts'
import { PawlError } from '../../errors/index.ts'
import { admit } from '../../http/admit-request.ts'
import { type IdempotencyOptions, routeOptions } from '../../http/route-options.ts'
import { type PawlLike, runtimeOf } from '../../http/runtime.ts'
import { select } from '../../http/match-request.ts'
import { toResponse } from './response.ts'
import { runFetchAttempt } from './run-attempt.ts'
import { FetchView } from './fetch-request-view.ts'

export type { IdempotencyOptions } from '../../http/route-options.ts'

/** What a handler is called with, and how to find the Request in it. */
type FindRequest<Subject> = Subject extends Request
  ? { request?: undefined }
  : {
      /** Finds the request in the handler's first argument, where that is not the request itself. */
      request: (subject: Subject) => Request
    }

/** Options of {@link idempotency}; their functions get the handler's first argument. */
export type FetchIdempotencyOptions<Subject = Request> = IdempotencyOptions<Subject> &
  FindRequest<Subject>

type Handler<Subject, Rest extends unknown[]> = (
  subject: Subject,
  ...rest: Rest
) => Response | Promise<Response>

const executions = new WeakMap<Request, Execution>()

/**
 * Protects handlers that take a Request and give a Response: a request with an idempotency key runs
 * once, and its retries get the stored response.
 *
 * ```ts
 * const protect = idempotency(pawl, { scope: (request) => userOf(request) })
 * export const POST = protect(async (request) => Response.json(await createOrder(request)))
 * ```
 *
 * A handler that throws answers 500 (`handler-failed`), by the rule for 5xx; the error goes to Pawl's
 * logger as a warning. Mistakes of the app (`not-started`, `scope-invalid`, `body-unreadable`) reject
 * with a PawlError.
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
  if (options.recover) throw noRecovery()
  if (find !== undefined && typeof find !== 'function') throw noFunction()

  return (handler) =>
    async (subject, ...rest) => {
      const request = find ? find(subject) : (subject as Request)
      if (executions.has(request)) return handler(subject, ...rest)
      const view = new FetchView(request)
      const selected = select(runtime, options, subject, view)
      if (selected.kind === 'pass') return handler(subject, ...rest)
      if (selected.kind === 'answer') return toResponse(selected.answer)
      const admission = await admit(runtime, options, subject, view, selected.key)
      if (admission.kind === 'unprotected') return handler(subject, ...rest)
      if (admission.kind === 'answer') return toResponse(admission.answer)
      if (admission.kind === 'gone') return new Response(null, { status: 400 }) // Nobody reads it.
      executions.set(request, admission.attempt.execution)
      const handle = async () => handler(subject, ...rest)
      return runFetchAttempt({ runtime, options, admitted: admission, handle })
    }
}

/** The execution that a request belongs to; undefined if it is not protected. */
export function executionOf(request: Request): Execution | undefined {
  return executions.get(request)
}

function noRecovery(): PawlError {
  return new PawlError(
    'invalid-option',
    'idempotency(): Option "recover" needs requests that come through Node.',
    'Use it with Express, Fastify, Koa, Nest, or Hono on Node.',
  )
}

function noFunction(): PawlError {
  return new PawlError(
    'invalid-option',
    'idempotency(): Option "request" is no function.',
    'It finds the Request in what the handler is called with.',
  )
}
