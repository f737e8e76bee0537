/** The Express middleware `idempotency`: a request with an idempotency key runs once, and its retries get the stored response. */

import type { Request, RequestHandler } from 'express'
import type { Execution } from '../engine/execution.ts'
import { matchRequest } from '../http/match-request.ts'
import { type IdempotencyOptions, routeOptions } from '../http/route-options.ts'
import { type PawlLike, runtimeOf } from '../http/runtime.ts'
import { handleKeyedRequest } from './node/handle-keyed-request.ts'
import { NodeRequestView } from './node/node-request-view.ts'
import { sendResponse } from './node/send-response.ts'

export type { IdempotencyOptions } from '../http/route-options.ts'

declare global {
  namespace Express {
    interface Request {
      /** The execution this request belongs to; undefined if the request is not protected. */
      execution?: Execution
    }
  }
}

/** Marks a request that an `idempotency()` already handles, where the app mounts several. */
const HANDLED = Symbol('pawl.handled')

/**
 * Express 4 and 5 middleware: a request with an idempotency key runs once, and its retries get the
 * stored response. Mount it for all routes or for one, before or after the body parser. If it is mounted
 * twice, the first one that finds a key handles the request.
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

  return (request: Request & { [HANDLED]?: true }, response, next) => {
    try {
      if (request[HANDLED] || response.headersSent || response.writableEnded) return next()
      const view = new NodeRequestView(request, response, request.originalUrl, {
        parsed: request.body,
      })
      const match = matchRequest(runtime, resolved, request, view)
      if (match.kind === 'pass') return next()
      if (match.kind === 'respond') return sendResponse(response, match.response)
      request[HANDLED] = true
      const run = (execution?: Execution) => {
        if (execution) request.execution = execution
        next()
      }
      handleKeyedRequest(runtime, resolved, { request, view, response, run, fail: next }, match.key)
    } catch (error) {
      next(error)
    }
  }
}
