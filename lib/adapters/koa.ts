/** The Koa middleware `idempotency`: a request with an idempotency key runs once, and its retries get the stored response. */

import type { IncomingMessage } from 'node:http'
import type { Context, Middleware } from 'koa'
import type { Execution } from '../engine/execution.ts'
import { matchRequest } from '../http/match-request.ts'
import type { PawlResponse } from '../http/responses.ts'
import { type IdempotencyOptions, routeOptions } from '../http/route-options.ts'
import { type PawlLike, runtimeOf } from '../http/runtime.ts'
import { handleKeyedRequest } from './node/handle-keyed-request.ts'
import { NodeRequestView } from './node/node-request-view.ts'
import { sendResponse } from './node/send-response.ts'

export type { IdempotencyOptions } from '../http/route-options.ts'

/** The properties that `idempotency()` adds to `ctx.state`. */
export interface IdempotencyState {
  /** The execution this request belongs to; undefined if the request is not protected. */
  execution?: Execution
}

/** Requests that an `idempotency()` already handles, where the app mounts several. */
const handledRequests = new WeakSet<IncomingMessage>()

/**
 * Koa middleware: a request with an idempotency key runs once, and its retries get the stored response.
 * Mount it before or after the body parser, and after authentication if `scope` needs it. The handler
 * finds its execution in `ctx.state.execution`.
 *
 * ```ts
 * app.use(idempotency(pawl, { scope: (ctx) => ctx.state.user.id }))
 * ```
 *
 * Mistakes of the app (`not-started`, `scope-invalid`, `body-unreadable`) are thrown as PawlError.
 *
 * @throws PawlError `invalid-option`
 */
export function idempotency(pawl: PawlLike, given?: IdempotencyOptions<Context>): Middleware {
  const runtime = runtimeOf(pawl)
  const options = routeOptions(given)

  return async (ctx, next) => {
    const { req, res } = ctx
    if (handledRequests.has(req) || res.headersSent || res.writableEnded) return next()
    const { body: parsed } = ctx.request as { body?: unknown }
    const view = new NodeRequestView(req, res, ctx.originalUrl, { parsed })
    const match = matchRequest(runtime, options, ctx, view)
    if (match.kind === 'pass') return next()
    const respond = (pawlResponse: PawlResponse) => {
      ctx.respond = false
      sendResponse(res, pawlResponse)
    }
    if (match.kind === 'respond') return respond(match.response)
    handledRequests.add(req)
    return new Promise<unknown>((resolve, reject) => {
      let handlerStarted = false
      const onClose = () => {
        if (handlerStarted) return
        ctx.respond = false
        resolve(undefined)
      }
      const run = (execution?: Execution) => {
        handlerStarted = true
        if (execution) {
          ctx.state.execution = execution
          keepWritable(ctx)
        }
        resolve(next())
      }
      const exchange = {
        ...{ request: ctx, view, response: res, run, fail: reject },
        respond(pawlResponse: PawlResponse) {
          respond(pawlResponse)
          resolve(undefined)
        },
      }
      res.once('close', onClose)
      handleKeyedRequest(runtime, options, exchange, match.key).then(() => res.closed && onClose())
    })
  }
}

/** Makes Koa respond even after the client has disconnected, since the response must be recorded. */
function keepWritable(ctx: Context): void {
  Object.defineProperty(ctx, 'writable', { get: () => !ctx.res.writableEnded })
}
