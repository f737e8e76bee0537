import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import fastifyPlugin from 'fastify-plugin'
import type { Execution } from '../../engine/execution.ts'
import { admit } from '../../http/admit-request.ts'
import type { Answer } from '../../http/responses.ts'
import type { ParsedKey } from '../../http/idempotency-key.ts'
import {
  type IdempotencyOptions,
  type RouteOptions,
  routeOptions,
} from '../../http/route-options.ts'
import { type PawlLike, runtimeOf } from '../../http/runtime.ts'
import { select } from '../../http/match-request.ts'
import { NodeView } from '../node/handle-keyed-request.ts'
import { BodyTap, hasBody, wasRead } from '../node/request-body.ts'
import { AnsweredReply, type GuardedReply, RunningReply } from './intercepted-reply.ts'

export type { IdempotencyOptions } from '../../http/route-options.ts'

/** Options of the plugin: those of `idempotency()` for all its routes, and the Pawl to use. */
export interface FastifyIdempotencyOptions extends IdempotencyOptions<FastifyRequest> {
  /** The app's instance, started before the server listens. */
  pawl: PawlLike
}

declare module 'fastify' {
  interface FastifyRequest {
    /** The execution this request belongs to; undefined if the request is not protected. */
    execution?: Execution
  }
  interface FastifyContextConfig {
    /** Options of this route, on top of the plugin's; `false`: it is not protected. */
    idempotency?: IdempotencyOptions<FastifyRequest> | false
  }
}

type Options = RouteOptions<FastifyRequest>

/** Of requests that an idempotency plugin is in charge of: how their reply goes out. */
const guarded = new WeakMap<FastifyRequest, GuardedReply>()

/**
 * Fastify 4 and 5 plugin: in the scope that registers it, a request with an idempotency key runs once,
 * and its retries get the stored response. Register it before the routes.
 *
 * ```ts
 * await app.register(idempotency, { pawl, scope: (request) => request.user.id })
 * app.post('/orders', { config: { idempotency: { resumable: true } } }, createOrder)
 * ```
 *
 * A request is claimed after all other `preHandler` hooks of its route: authentication, validation and
 * rate limits come first, and what they refuse is not stored. Its body counts byte by byte as it came.
 *
 * Errors: bad input is answered with problem documents (RFC 9457, see docs/problems.md); mistakes of
 * the app (`not-started`, `scope-invalid`) go to the error handler as PawlError.
 *
 * @throws PawlError `invalid-option` where it is registered, or where a route is added
 */
export const idempotency: FastifyPluginAsync<FastifyIdempotencyOptions> = fastifyPlugin(plugin, {
  name: 'pawl',
  fastify: '4.x || 5.x',
})

async function plugin(
  fastify: Parameters<FastifyPluginAsync>[0],
  given: FastifyIdempotencyOptions,
): Promise<void> {
  const { pawl, defaults } = split(given)
  const runtime = runtimeOf(pawl)
  const scopeOptions = routeOptions(defaults)
  /** In the config of routes that have the hooks below as their own: their options. */
  const ROUTE = Symbol('pawl.route')
  const taps = new WeakMap<FastifyRequest, BodyTap>()

  const own = (request: FastifyRequest) =>
    (request.routeOptions.config as { [ROUTE]?: Options | false })[ROUTE]

  const claim = async (
    request: FastifyRequest,
    reply: FastifyReply,
    options: Options,
    view: NodeView,
    key: ParsedKey,
    next: Next,
  ): Promise<void> => {
    const admission = await admit(runtime, options, request, view, key)
    if (admission.kind === 'run') {
      request.execution = admission.attempt.execution
      const running = new RunningReply(runtime, options, reply, admission)
      guarded.set(request, running)
      running.begin(next)
    } else if (admission.kind === 'answer') answer(request, reply, admission.answer)
    else if (admission.kind === 'gone') reply.hijack()
    else next()
  }

  // Hooks with callbacks: whatever is not protected goes on at once.
  const preHandler = (request: FastifyRequest, reply: FastifyReply, next: Next) => {
    const options = own(request) ?? scopeOptions
    if (!options || guarded.has(request)) return next()
    try {
      const body = { tap: taps.get(request), parsed: request.body }
      const view = new NodeView(request.raw, reply.raw, request.originalUrl, body)
      const selected = select(runtime, options, request, view)
      if (selected.kind === 'pass') return next()
      if (selected.kind === 'answer') return answer(request, reply, selected.answer)
      claim(request, reply, options, view, selected.key, next).catch(next)
    } catch (error) {
      next(error as Error) // Of the app's functions.
    }
  }

  const onSend = (request: FastifyRequest, _: unknown, payload: unknown, next: NextPayload) => {
    const reply = guarded.get(request)
    if (!reply) return next()
    reply.send(payload).then((held) => {
      try {
        next(null, held)
      } catch (error) {
        next(error as Error) // Fastify 4 does not catch what it throws itself behind a hook.
      }
    }, next)
  }

  // Behind the hooks of all scopes and of the route itself, so that authentication comes before the
  // claim and compression before the record.
  fastify.addHook('onRoute', (route) => {
    const config = (route.config ?? {}) as {
      idempotency?: IdempotencyOptions<FastifyRequest> | false
    }
    const options = config.idempotency
      ? routeOptions({ ...defaults, ...config.idempotency })
      : config.idempotency !== false && scopeOptions
    route.config = Object.assign(config, { [ROUTE]: options }) as NonNullable<typeof route.config>
    if (!options) return
    route.preHandler = [route.preHandler ?? []].flat().concat(preHandler)
    route.onSend = [route.onSend ?? []].flat().concat(onSend)
  })

  fastify.addHook('onRequest', (request, _, next) => {
    const options = own(request) ?? scopeOptions
    if (options && mayNeedBody(request, options)) {
      taps.set(request, new BodyTap(request.raw, options.maxRequestBody))
    }
    next()
  })
  // Routes that were added before this plugin was loaded, and what has no route.
  fastify.addHook('preHandler', (request, reply, next) =>
    own(request) === undefined ? preHandler(request, reply, next) : next(),
  )
  fastify.addHook('onSend', (request, reply, payload, next) =>
    own(request) === undefined ? onSend(request, reply, payload, next) : next(),
  )
  if (!fastify.hasRequestDecorator('execution')) fastify.decorateRequest('execution', undefined)
}

type Next = (error?: Error) => void
type NextPayload = (error?: Error | null, payload?: unknown) => void

/** Without what Fastify itself takes from the options of a plugin. */
function split(given: FastifyIdempotencyOptions) {
  const { pawl, prefix, logLevel, logSerializers, ...defaults } =
    given as FastifyIdempotencyOptions & Record<'prefix' | 'logLevel' | 'logSerializers', unknown>
  return { pawl, defaults: defaults as IdempotencyOptions<FastifyRequest> }
}

function mayNeedBody({ raw }: FastifyRequest, options: Options): boolean {
  const { methods, key, fingerprint } = options
  if (fingerprint || (methods !== 'all' && !methods.has(raw.method ?? ''))) return false
  if (typeof key === 'string' && raw.headers[key] === undefined) return false
  return hasBody(raw) && !wasRead(raw)
}

/** The bytes are put in by the onSend hook, behind whatever else works on replies. */
function answer(request: FastifyRequest, reply: FastifyReply, what: Answer): void {
  guarded.set(request, new AnsweredReply(reply, what))
  reply.code(what.status).send()
}
