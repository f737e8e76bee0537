/** The Fastify plugin `idempotency`: a request with an idempotency key runs once, and its retries get the stored response. */

import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import fastifyPlugin from 'fastify-plugin'
import type { Execution } from '../../engine/execution.ts'
import { admitRequest } from '../../http/admit-request.ts'
import type { ParsedKey } from '../../http/idempotency-key.ts'
import { matchRequest } from '../../http/match-request.ts'
import type { PawlResponse } from '../../http/responses.ts'
import {
  type IdempotencyOptions,
  type RouteOptions,
  routeOptions,
} from '../../http/route-options.ts'
import { type PawlLike, runtimeOf } from '../../http/runtime.ts'
import { NodeRequestView } from '../node/node-request-view.ts'
import { BodyRecorder, hasBody, wasRead } from '../node/request-body.ts'
import { HandlerReply, type InterceptedReply, PawlReply } from './intercepted-reply.ts'

export type { IdempotencyOptions } from '../../http/route-options.ts'

/** Options of the plugin: the Pawl instance, and the options of `idempotency()` for all routes in the scope. */
export interface FastifyIdempotencyOptions extends IdempotencyOptions<FastifyRequest> {
  /** The app's Pawl instance, started before the server listens. */
  pawl: PawlLike
}

declare module 'fastify' {
  interface FastifyRequest {
    /** The execution this request belongs to; undefined if the request is not protected. */
    execution?: Execution
  }
  interface FastifyContextConfig {
    /** Options of this route, which override the plugin's; `false`: the route is not protected. */
    idempotency?: IdempotencyOptions<FastifyRequest> | false
  }
}

type Options = RouteOptions<FastifyRequest>

/** The replies to the requests that one of the app's plugins already handles. */
const interceptedReplies = new WeakMap<FastifyRequest, InterceptedReply>()

/**
 * Fastify 4 and 5 plugin: in the scope that registers it, a request with an idempotency key runs once,
 * and its retries get the stored response. Register it before the routes.
 *
 * ```ts
 * await app.register(idempotency, { pawl, scope: (request) => request.user.id })
 * app.post('/orders', { config: { idempotency: { resumable: true } } }, createOrder)
 * ```
 *
 * A request is claimed after all other `preHandler` hooks of its route. Authentication, validation and
 * rate limits run before, and a response of theirs is not stored. Bodies are compared byte by byte.
 *
 * Errors: bad input is answered with problem documents (RFC 9457, see docs/problems.md); mistakes of
 * the app (`not-started`, `scope-invalid`) go to the error handler as PawlError.
 *
 * @throws PawlError `invalid-option` when the plugin is registered, or when a route is added
 */
export const idempotency: FastifyPluginAsync<FastifyIdempotencyOptions> = fastifyPlugin(plugin, {
  name: 'pawl',
  fastify: '4.x || 5.x',
})

async function plugin(
  fastify: Parameters<FastifyPluginAsync>[0],
  given: FastifyIdempotencyOptions,
): Promise<void> {
  const { pawl, defaults } = splitOptions(given)
  const runtime = runtimeOf(pawl)
  const scopeOptions = routeOptions(defaults)
  /** The key, in the config of a route, of its resolved options; only routes seen by `onRoute` have it. */
  const ROUTE_OPTIONS = Symbol('pawl.route')
  const bodyRecorders = new WeakMap<FastifyRequest, BodyRecorder>()

  const optionsOfRoute = (request: FastifyRequest) =>
    (request.routeOptions.config as { [ROUTE_OPTIONS]?: Options | false })[ROUTE_OPTIONS]

  const claim = async (
    request: FastifyRequest,
    reply: FastifyReply,
    options: Options,
    view: NodeRequestView,
    key: ParsedKey,
    next: Next,
  ): Promise<void> => {
    const admission = await admitRequest(runtime, options, request, view, key)
    if (admission.kind === 'run') {
      request.execution = admission.attempt.execution
      const handlerReply = new HandlerReply(runtime, options, reply, admission)
      interceptedReplies.set(request, handlerReply)
      handlerReply.start(next)
    } else if (admission.kind === 'respond') respond(request, reply, admission.response)
    else if (admission.kind === 'disconnected') reply.hijack()
    else next()
  }

  // Hooks with callbacks, so that requests that are not protected continue in the same tick.
  const preHandler = (request: FastifyRequest, reply: FastifyReply, next: Next) => {
    const options = optionsOfRoute(request) ?? scopeOptions
    if (!options || interceptedReplies.has(request)) return next()
    try {
      const body = { recorder: bodyRecorders.get(request), parsed: request.body }
      const view = new NodeRequestView(request.raw, reply.raw, request.originalUrl, body)
      const match = matchRequest(runtime, options, request, view)
      if (match.kind === 'pass') return next()
      if (match.kind === 'respond') return respond(request, reply, match.response)
      claim(request, reply, options, view, match.key, next).catch(next)
    } catch (error) {
      next(error as Error) // An error of a function in the options.
    }
  }

  const onSend = (request: FastifyRequest, _: unknown, payload: unknown, next: NextPayload) => {
    const reply = interceptedReplies.get(request)
    if (!reply) return next()
    reply.send(payload).then((payloadToSend) => {
      try {
        next(null, payloadToSend)
      } catch (error) {
        next(error as Error) // Fastify 4 does not catch errors that its own code throws after a hook.
      }
    }, next)
  }

  // These hooks come after those of all scopes and of the route itself: authentication runs before the
  // claim, and compression before the response is recorded.
  fastify.addHook('onRoute', (route) => {
    const config = (route.config ?? {}) as {
      idempotency?: IdempotencyOptions<FastifyRequest> | false
    }
    const options = config.idempotency
      ? routeOptions({ ...defaults, ...config.idempotency })
      : config.idempotency !== false && scopeOptions
    route.config = Object.assign(config, { [ROUTE_OPTIONS]: options }) as NonNullable<
      typeof route.config
    >
    if (!options) return
    route.preHandler = [route.preHandler ?? []].flat().concat(preHandler)
    route.onSend = [route.onSend ?? []].flat().concat(onSend)
  })

  fastify.addHook('onRequest', (request, _, next) => {
    const options = optionsOfRoute(request) ?? scopeOptions
    if (options && mayNeedBody(request, options)) {
      bodyRecorders.set(request, new BodyRecorder(request.raw, options.maxRequestBody))
    }
    next()
  })
  // For routes that were added before this plugin was loaded, and for requests without a route.
  fastify.addHook('preHandler', (request, reply, next) =>
    optionsOfRoute(request) === undefined ? preHandler(request, reply, next) : next(),
  )
  fastify.addHook('onSend', (request, reply, payload, next) =>
    optionsOfRoute(request) === undefined ? onSend(request, reply, payload, next) : next(),
  )
  if (!fastify.hasRequestDecorator('execution')) fastify.decorateRequest('execution', undefined)
}

type Next = (error?: Error) => void
type NextPayload = (error?: Error | null, payload?: unknown) => void

/** Separates the options of `idempotency()` from the Pawl instance and from Fastify's own plugin options. */
function splitOptions(given: FastifyIdempotencyOptions) {
  const { pawl, prefix, logLevel, logSerializers, ...defaults } =
    given as FastifyIdempotencyOptions & Record<'prefix' | 'logLevel' | 'logSerializers', unknown>
  return { pawl, defaults: defaults as IdempotencyOptions<FastifyRequest> }
}

/** Whether the request's body may be needed for its fingerprint, and its bytes are still unread. */
function mayNeedBody({ raw }: FastifyRequest, options: Options): boolean {
  const { methods, key, fingerprint } = options
  if (fingerprint || (methods !== 'all' && !methods.has(raw.method ?? ''))) return false
  if (typeof key === 'string' && raw.headers[key] === undefined) return false
  return hasBody(raw) && !wasRead(raw)
}

/** Sends a response of Pawl. The onSend hook adds its body, after all other hooks that change replies. */
function respond(request: FastifyRequest, reply: FastifyReply, pawlResponse: PawlResponse): void {
  interceptedReplies.set(request, new PawlReply(reply, pawlResponse))
  reply.code(pawlResponse.status).send()
}
