import type { IncomingMessage } from 'node:http'
import type { Context, Middleware } from 'koa'
import type { Execution } from '../engine/execution.ts'
import type { Answer } from '../http/responses.ts'
import { type IdempotencyOptions, routeOptions } from '../http/route-options.ts'
import { type PawlLike, runtimeOf } from '../http/runtime.ts'
import { select } from '../http/match-request.ts'
import { handleKeyed, NodeView } from './node/handle-keyed-request.ts'
import { send } from './node/send-response.ts'

export type { IdempotencyOptions } from '../http/route-options.ts'

/** What `idempotency()` adds to `ctx.state`. */
export interface IdempotencyState {
  /** The execution this request belongs to; undefined if the request is not protected. */
  execution?: Execution
}

/** Requests that an idempotency() which found their key is in charge of. */
const inCharge = new WeakSet<IncomingMessage>()

/**
 * Koa middleware: a request with an idempotency key runs once, and its retries get the stored response.
 * Mount it before or after the body parser, behind authentication if `scope` needs it. The handler
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
    if (inCharge.has(req) || res.headersSent || res.writableEnded) return next()
    const { body: parsed } = ctx.request as { body?: unknown }
    const view = new NodeView(req, res, ctx.originalUrl, { parsed })
    const selected = select(runtime, options, ctx, view)
    if (selected.kind === 'pass') return next()
    const answer = (what: Answer) => {
      ctx.respond = false
      send(res, what)
    }
    if (selected.kind === 'answer') return answer(selected.answer)
    inCharge.add(req)
    return new Promise<unknown>((resolve, reject) => {
      let runs = false
      const over = () => {
        if (runs) return
        ctx.respond = false
        resolve(undefined)
      }
      const run = (execution?: Execution) => {
        runs = true
        if (execution) {
          ctx.state.execution = execution
          answersAlways(ctx)
        }
        resolve(next())
      }
      const exchange = {
        ...{ request: ctx, view, response: res, run, fail: reject },
        answer(what: Answer) {
          answer(what)
          resolve(undefined)
        },
      }
      res.once('close', over)
      handleKeyed(runtime, options, exchange, selected.key).then(() => res.closed && over())
    })
  }
}

/** Koa does not answer once the client is gone; but its answer is still wanted. */
function answersAlways(ctx: Context): void {
  Object.defineProperty(ctx, 'writable', { get: () => !ctx.res.writableEnded })
}
