import type { Request, RequestHandler } from 'express'
import type { Execution } from '../engine/execution.ts'
import { type IdempotencyOptions, routeOptions } from '../http/route-options.ts'
import { type PawlLike, runtimeOf } from '../http/runtime.ts'
import { select } from '../http/match-request.ts'
import { handleKeyed, NodeView } from './node/handle-keyed-request.ts'
import { send } from './node/send-response.ts'

export type { IdempotencyOptions } from '../http/route-options.ts'

declare global {
  namespace Express {
    interface Request {
      /** The execution this request belongs to; undefined if the request is not protected. */
      execution?: Execution
    }
  }
}

/** Of a request: an idempotency() that found its key is in charge of it. */
const IN_CHARGE = Symbol('pawl.in-charge')

/**
 * Express 4 and 5 middleware: a request with an idempotency key runs once, and its retries get the
 * stored response. Mount it for all routes or for one, before or after the body parser. Where it is
 * mounted twice, the first that finds a key is in charge.
 *
 * ```ts
 * app.use(idempotency(pawl, { scope: (req) => req.user.id }))
 * ```
 *
 * Errors: bad input is answered with problem documents (RFC 9457, see docs/problems.md); mistakes of
 * the app (`not-started`, `scope-invalid`, `body-unreadable`) go to `next(error)` as PawlError.
 *
 * @throws PawlError `invalid-option`
 */
export function idempotency(pawl: PawlLike, options?: IdempotencyOptions<Request>): RequestHandler {
  const runtime = runtimeOf(pawl)
  const resolved = routeOptions(options)

  return (request: Request & { [IN_CHARGE]?: true }, response, next) => {
    try {
      if (request[IN_CHARGE] || response.headersSent || response.writableEnded) return next()
      const view = new NodeView(request, response, request.originalUrl, { parsed: request.body })
      const selected = select(runtime, resolved, request, view)
      if (selected.kind === 'pass') return next()
      if (selected.kind === 'answer') return send(response, selected.answer)
      request[IN_CHARGE] = true
      const run = (execution?: Execution) => {
        if (execution) request.execution = execution
        next()
      }
      handleKeyed(runtime, resolved, { request, view, response, run, fail: next }, selected.key)
    } catch (error) {
      next(error)
    }
  }
}
