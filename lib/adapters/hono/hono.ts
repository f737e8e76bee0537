import type { IncomingMessage } from 'node:http'
import type { Context, Env, MiddlewareHandler } from 'hono'
import type { Attempt } from '../../engine/attempt.ts'
import type { Execution } from '../../engine/execution.ts'
import { admit } from '../../http/admit-request.ts'
import type { Answer } from '../../http/responses.ts'
import type { Body } from '../../http/fingerprint.ts'
import type { Header } from '../../http/headers.ts'
import type { BodyFailure } from '../../http/request-view.ts'
import { type IdempotencyOptions, routeOptions } from '../../http/route-options.ts'
import { type PawlLike, type RequestRuntime, runtimeOf } from '../../http/runtime.ts'
import { select } from '../../http/match-request.ts'
import { headersOf, toResponse } from '../fetch/response.ts'
import { runFetchAttempt } from '../fetch/run-attempt.ts'
import { FetchView } from '../fetch/fetch-request-view.ts'
import { recoveredAttempt } from '../node/recovery.ts'
import { answerBesideHandler, replaceResponse, runBehind } from './context-response.ts'

export type { IdempotencyOptions } from '../../http/route-options.ts'

declare module 'hono' {
  interface ContextVariableMap {
    /** The execution this request belongs to; undefined if the request is not protected. */
    execution: Execution | undefined
  }
}

/** Requests that an idempotency() which found their key is in charge of. */
const inCharge = new WeakSet<Request>()

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
    if (inCharge.has(request)) return next()
    const view = new HonoView(c)
    const selected = select(runtime, options, c, view)
    if (selected.kind === 'pass') return next()
    if (selected.kind === 'answer') return answer(c, selected.answer)
    inCharge.add(request)
    const admission = await admit(runtime, options, c, view, selected.key)
    if (admission.kind === 'unprotected') return next()
    if (admission.kind === 'answer') return answer(c, admission.answer)
    if (admission.kind === 'gone') return c.body(null, 400) // Nobody reads it.
    const context = c as unknown as Context
    context.set('execution', admission.attempt.execution)
    const initial = initialHeaders(c)
    let ended = false
    const handle = () =>
      runBehind(context, async () => {
        await next()
        ended = true
        return c.res
      })
    const response = await runFetchAttempt({
      runtime,
      options,
      admitted: admission,
      initial,
      handle,
    })
    if (ended) replaceResponse(context, response)
    else answerBesideHandler(context, response)
  }
}

/** Hono keeps what its own methods have read of a body. */
class HonoView extends FetchView {
  readonly #context: Context

  constructor(context: Context) {
    super(context.req.raw)
    this.#context = context
  }

  /** On Node the request came through Node's own. */
  override recovered(runtime: RequestRuntime): Attempt | undefined {
    const { incoming } = (this.#context.env ?? {}) as { incoming?: IncomingMessage }
    return incoming && recoveredAttempt(runtime, incoming)
  }

  override async body(maxBytes: number): Promise<Body | BodyFailure> {
    const body = await super.body(maxBytes)
    if (body !== 'consumed') return body
    try {
      const bytes = Buffer.from(await this.#context.req.arrayBuffer())
      return bytes.length > maxBytes ? 'too-large' : { raw: [bytes] }
    } catch {
      return 'consumed'
    }
  }
}

function answer(c: Context, what: Answer): void {
  replaceResponse(c, toResponse(what, initialHeaders(c)))
}

/** What middleware before this one has set, such as CORS; the type is that of a body to come. */
function initialHeaders(c: Context): Map<string, Header> {
  const headers = headersOf(c.res.headers).filter(([name]) => name !== 'content-type')
  return new Map(headers.map((header) => [header[0], header]))
}
