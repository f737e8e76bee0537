/** The Hono middleware `idempotency`: a request with an idempotency key runs once, and its retries get the stored response. */

import type { IncomingMessage } from 'node:http'
import type { Context, Env, MiddlewareHandler } from 'hono'
import type { Attempt } from '../../engine/attempt.ts'
import type { Execution } from '../../engine/execution.ts'
import { admitRequest } from '../../http/admit-request.ts'
import type { RequestBody } from '../../http/fingerprint.ts'
import type { Header } from '../../http/headers.ts'
import { matchRequest } from '../../http/match-request.ts'
import type { BodyFailure } from '../../http/request-view.ts'
import type { PawlResponse } from '../../http/responses.ts'
import { type IdempotencyOptions, routeOptions } from '../../http/route-options.ts'
import { type PawlLike, type RequestRuntime, runtimeOf } from '../../http/runtime.ts'
import { FetchRequestView } from '../fetch/fetch-request-view.ts'
import { headersOf, toResponse } from '../fetch/response.ts'
import { runFetchAttempt } from '../fetch/run-attempt.ts'
import { recoveredAttempt } from '../node/recovery.ts'
import { replaceResponse, respondBesideHandler, runAsHandler } from './context-response.ts'

export type { IdempotencyOptions } from '../../http/route-options.ts'

declare module 'hono' {
  interface ContextVariableMap {
    /** The execution this request belongs to; undefined if the request is not protected. */
    execution: Execution | undefined
  }
}

/** Requests that an `idempotency()` already handles, where the app mounts several. */
const handledRequests = new WeakSet<Request>()

/**
 * Hono middleware: a request with an idempotency key runs once, and its retries get the stored response.
 * The handler finds its execution in `c.get('execution')`.
 *
 * ```ts
 * app.use('/orders/*', idempotency(pawl, { scope: (c) => c.get('user').id }))
 * ```
 *
 * Mistakes of the app (`not-started`, `scope-invalid`, `body-unreadable`) go to `app.onError` as
 * PawlError.
 *
 * @throws PawlError `invalid-option`
 */
export function idempotency<E extends Env = Env>(
  pawl: PawlLike,
  given?: IdempotencyOptions<Context<E>>,
): MiddlewareHandler<E> {
  const runtime = runtimeOf(pawl)
  const options = routeOptions(given)

  return async (c, next) => {
    const request = c.req.raw
    if (handledRequests.has(request)) return next()
    const view = new HonoRequestView(c)
    const match = matchRequest(runtime, options, c, view)
    if (match.kind === 'pass') return next()
    if (match.kind === 'respond') return respond(c, match.response)
    handledRequests.add(request)
    const admission = await admitRequest(runtime, options, c, view, match.key)
    if (admission.kind === 'unprotected') return next()
    if (admission.kind === 'respond') return respond(c, admission.response)
    if (admission.kind === 'disconnected') return c.body(null, 400) // No client receives it.
    const context = c as unknown as Context
    context.set('execution', admission.attempt.execution)
    const initial = initialHeaders(c)
    let handlerEnded = false
    const handle = () =>
      runAsHandler(context, async () => {
        await next()
        handlerEnded = true
        return c.res
      })
    const response = await runFetchAttempt({
      runtime,
      options,
      admitted: admission,
      initial,
      handle,
    })
    if (handlerEnded) replaceResponse(context, response)
    else respondBesideHandler(context, response)
  }
}

/** A view that can also read a body that the app has already read through Hono, which caches it. */
class HonoRequestView extends FetchRequestView {
  readonly #context: Context

  constructor(context: Context) {
    super(context.req.raw)
    this.#context = context
  }

  /** On Node, the env has Node's request, which identifies a request that is delivered again. */
  override recoveredAttempt(runtime: RequestRuntime): Attempt | undefined {
    const { incoming } = (this.#context.env ?? {}) as { incoming?: IncomingMessage }
    return incoming && recoveredAttempt(runtime, incoming)
  }

  override async readBody(maxBytes: number): Promise<RequestBody | BodyFailure> {
    const body = await super.readBody(maxBytes)
    if (body !== 'consumed') return body
    try {
      const bytes = Buffer.from(await this.#context.req.arrayBuffer())
      return bytes.length > maxBytes ? 'too-large' : { raw: [bytes] }
    } catch {
      return 'consumed'
    }
  }
}

function respond(c: Context, pawlResponse: PawlResponse): void {
  replaceResponse(c, toResponse(pawlResponse, initialHeaders(c)))
}

/** The headers that earlier middleware has set, such as CORS, without the content type of a later body. */
function initialHeaders(c: Context): Map<string, Header> {
  const headers = headersOf(c.res.headers).filter(([name]) => name !== 'content-type')
  return new Map(headers.map((header) => [header[0], header]))
}
