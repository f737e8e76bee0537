import type { IncomingMessage, ServerResponse } from 'node:http'
import type { CallHandler, ExecutionContext, NestInterceptor } from '@nestjs/common'
import type { Reflector } from '@nestjs/core'
import { type Observable, of } from 'rxjs'
import type { Execution } from '../../engine/execution.ts'
import type { Answer } from '../../http/responses.ts'
import type { Header } from '../../http/headers.ts'
import {
  type IdempotencyOptions,
  type RouteOptions,
  routeOptions,
} from '../../http/route-options.ts'
import type { RequestRuntime } from '../../http/runtime.ts'
import { select } from '../../http/match-request.ts'
import { Capture } from '../node/response-capture.ts'
import { handleKeyed, NodeView } from '../node/handle-keyed-request.ts'
import { headerMap } from '../node/node-headers.ts'

/** The metadata that `@Idempotent()` sets. */
export const OPTIONS = 'pawl:idempotency'

/** Express' or Fastify's request, with whatever guards have put on it. */
export interface NestRequest {
  method: string
  headers: Record<string, string | string[] | undefined>
  body?: unknown
  /** The execution this request belongs to; undefined if the request is not protected. */
  execution?: Execution
}

/** What both platforms have of it, beyond that. */
interface PlatformRequest extends NestRequest {
  url: string
  originalUrl?: string
  /** Of `rawBody: true`. */
  rawBody?: Uint8Array
  /** Of Fastify: Node's own. */
  raw?: IncomingMessage
}

interface FastifyLikeReply {
  raw: ServerResponse
  getHeaders(): Record<string, unknown>
}

type Options = RouteOptions<NestRequest>
type Given = IdempotencyOptions<NestRequest>

/** Requests that are being dealt with. */
const inCharge = new WeakSet<object>()

export class IdempotencyInterceptor implements NestInterceptor {
  readonly #runtime: RequestRuntime
  readonly #defaults: Given
  readonly #reflector: Reflector
  /** By controller and handler, which controllers that inherit it share. */
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
    if (inCharge.has(request) || response.headersSent) return next.handle()

    const incoming = request.raw ?? (request as unknown as IncomingMessage)
    const { rawBody, body } = request
    const parsed = { parsed: rawBody ?? body }
    const view = new NodeView(incoming, response, request.originalUrl ?? request.url, parsed)
    const selected = select<NestRequest>(this.#runtime, options, request, view)
    if (selected.kind === 'pass') return next.handle()
    if (selected.kind === 'answer') return answerBelow(response, initial, selected.answer)
    inCharge.add(request)

    return new Promise((resolve, reject) => {
      const run = (execution?: Execution) => {
        if (execution) request.execution = execution
        resolve(next.handle())
      }
      const answer = (what: Answer) => resolve(answerBelow(response, initial, what))
      const exchange = { request, view, response, initial, run, answer, fail: reject }
      handleKeyed<NestRequest>(this.#runtime, options, exchange, selected.key)
    })
  }

  #optionsOf(context: ExecutionContext): Options | false {
    const [controller, handler] = [context.getClass(), context.getHandler()]
    const known = this.#resolved.get(controller) ?? new WeakMap<object, Options | false>()
    this.#resolved.set(controller, known)
    const options = known.get(handler) ?? this.#resolve(controller, handler)
    known.set(handler, options)
    return options
  }

  #resolve(controller: Target, handler: Target): Options | false {
    const given = (target: Target) =>
      this.#reflector.get<Given | false | undefined>(OPTIONS, target)
    const [ofAll, own] = [given(controller), given(handler)]
    if ((own ?? ofAll) === false) return false
    return routeOptions({ ...this.#defaults, ...ofAll, ...own })
  }
}

type Target = Parameters<Reflector['get']>[1]

/** Node's response, and the headers that Fastify keeps apart from it until it answers. */
function responseOf(response: ServerResponse | FastifyLikeReply): {
  response: ServerResponse
  initial: ReadonlyMap<string, Header>
} {
  if (!('raw' in response)) return { response, initial: headerMap(response.getHeaders()) }
  return { response: response.raw, initial: headerMap(response.getHeaders()) }
}

/** Nest answers every request itself: it goes on with nothing, on a response that is answered. */
function answerBelow(
  response: ServerResponse,
  initial: ReadonlyMap<string, Header>,
  answer: Answer,
): Observable<undefined> {
  new Capture(response, 0, async () => 'send', initial).answer(answer)
  return of(undefined)
}
