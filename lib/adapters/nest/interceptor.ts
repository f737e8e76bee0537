/** The NestJS interceptor that protects the routes of the app, on Express and on Fastify. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { CallHandler, ExecutionContext, NestInterceptor } from '@nestjs/common'
import type { Reflector } from '@nestjs/core'
import { type Observable, of } from 'rxjs'
import type { Execution } from '../../engine/execution.ts'
import type { Header } from '../../http/headers.ts'
import { matchRequest } from '../../http/match-request.ts'
import type { PawlResponse } from '../../http/responses.ts'
import {
  type IdempotencyOptions,
  type RouteOptions,
  routeOptions,
} from '../../http/route-options.ts'
import type { RequestRuntime } from '../../http/runtime.ts'
import { handleKeyedRequest } from '../node/handle-keyed-request.ts'
import { toHeaderMap } from '../node/node-headers.ts'
import { NodeRequestView } from '../node/node-request-view.ts'
import { ResponseCapture } from '../node/response-capture.ts'

/** The key of the metadata that `@Idempotent()` sets. */
export const OPTIONS_METADATA = 'pawl:idempotency'

/** The request of Express or Fastify, with the properties that guards have added. */
export interface NestRequest {
  method: string
  headers: Record<string, string | string[] | undefined>
  body?: unknown
  /** The execution this request belongs to; undefined if the request is not protected. */
  execution?: Execution
}

/** The properties of both platforms' requests that the interceptor needs. */
interface PlatformRequest extends NestRequest {
  url: string
  originalUrl?: string
  /** The body's bytes, with Nest's `rawBody: true`. */
  rawBody?: Uint8Array
  /** Node's request, on Fastify. */
  raw?: IncomingMessage
}

interface FastifyLikeReply {
  raw: ServerResponse
  getHeaders(): Record<string, unknown>
}

type Options = RouteOptions<NestRequest>
type Given = IdempotencyOptions<NestRequest>

/** Requests that an interceptor already handles, where the app has several. */
const handledRequests = new WeakSet<object>()

export class IdempotencyInterceptor implements NestInterceptor {
  readonly #runtime: RequestRuntime
  readonly #defaults: Given
  readonly #reflector: Reflector
  /** Resolved options by controller and handler. Controllers that inherit a handler share its function. */
  readonly #resolved = new WeakMap<object, WeakMap<object, Options | false>>()

  constructor(runtime: RequestRuntime, defaults: IdempotencyOptions<never>, reflector: Reflector) {
    this.#runtime = runtime
    this.#defaults = defaults as Given
    this.#reflector = reflector
  }

  async intercept(context: ExecutionContext, next: CallHandler): Promise<Observable<unknown>> {
    const options = context.getType() === 'http' && this.#optionsOf(context)
    if (!options) return next.handle()
    const http = context.switchToHttp()
    const request = http.getRequest<PlatformRequest>()
    const { response, initial } = responseOf(http.getResponse())
    if (handledRequests.has(request) || response.headersSent) return next.handle()

    const incoming = request.raw ?? (request as unknown as IncomingMessage)
    const { rawBody, body } = request
    const parsed = { parsed: rawBody ?? body }
    const view = new NodeRequestView(incoming, response, request.originalUrl ?? request.url, parsed)
    const match = matchRequest<NestRequest>(this.#runtime, options, request, view)
    if (match.kind === 'pass') return next.handle()
    if (match.kind === 'respond') return respondBelowNest(response, initial, match.response)
    handledRequests.add(request)

    return new Promise((resolve, reject) => {
      const run = (execution?: Execution) => {
        if (execution) request.execution = execution
        resolve(next.handle())
      }
      const respond = (pawlResponse: PawlResponse) =>
        resolve(respondBelowNest(response, initial, pawlResponse))
      const exchange = { request, view, response, initial, run, respond, fail: reject }
      handleKeyedRequest<NestRequest>(this.#runtime, options, exchange, match.key)
    })
  }

  #optionsOf(context: ExecutionContext): Options | false {
    const [controller, handler] = [context.getClass(), context.getHandler()]
    const byHandler = this.#resolved.get(controller) ?? new WeakMap<object, Options | false>()
    this.#resolved.set(controller, byHandler)
    const options = byHandler.get(handler) ?? this.#resolve(controller, handler)
    byHandler.set(handler, options)
    return options
  }

  #resolve(controller: Target, handler: Target): Options | false {
    const given = (target: Target) =>
      this.#reflector.get<Given | false | undefined>(OPTIONS_METADATA, target)
    const [ofController, ofHandler] = [given(controller), given(handler)]
    if ((ofHandler ?? ofController) === false) return false
    return routeOptions({ ...this.#defaults, ...ofController, ...ofHandler })
  }
}

type Target = Parameters<Reflector['get']>[1]

/** Node's response, and the headers that are set so far; Fastify keeps them separately until it responds. */
function responseOf(response: ServerResponse | FastifyLikeReply): {
  response: ServerResponse
  initial: ReadonlyMap<string, Header>
} {
  if (!('raw' in response)) return { response, initial: toHeaderMap(response.getHeaders()) }
  return { response: response.raw, initial: toHeaderMap(response.getHeaders()) }
}

/**
 * Sends a response of Pawl through Node's response. Nest also responds to every request itself: it gets
 * no value, and writes to a response that was already replaced.
 */
function respondBelowNest(
  response: ServerResponse,
  initial: ReadonlyMap<string, Header>,
  pawlResponse: PawlResponse,
): Observable<undefined> {
  new ResponseCapture(response, 0, async () => 'send', initial).respondInstead(pawlResponse)
  return of(undefined)
}
