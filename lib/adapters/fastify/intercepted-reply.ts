/** Intercepts replies of Fastify in its `onSend` hook: records what a handler sends, or sends Pawl's response. */

import { validateHeaderName, validateHeaderValue } from 'node:http'
import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import type { AdmittedAttempt } from '../../http/admit-request.ts'
import {
  AttemptRunner,
  type CapturedResponse,
  type InterceptedResponse,
} from '../../http/attempt-runner.ts'
import { bufferStream } from '../../http/buffered-stream.ts'
import { type Header, isEventStream } from '../../http/headers.ts'
import { corsExposedHeaders, type PawlResponse } from '../../http/responses.ts'
import type { RouteOptions } from '../../http/route-options.ts'
import type { RequestRuntime } from '../../http/runtime.ts'
import { isSameValue, toHeaderMap } from '../node/node-headers.ts'
import { ResponseCapture } from '../node/response-capture.ts'

type NodeStream = NodeJS.ReadableStream

/** The payloads that Fastify accepts after serialization. */
type Payload = string | Buffer | NodeStream | ReadableStream | Response | null | undefined

/** A reply whose payload Pawl replaces or records in `onSend`. */
export interface InterceptedReply {
  /** Receives the payload of the reply, and resolves to the payload that Fastify sends. */
  send(payload: unknown): Promise<unknown>
}

/** A reply with a response of Pawl. */
export class PawlReply implements InterceptedReply {
  readonly #reply: FastifyReply
  readonly #response: PawlResponse

  constructor(reply: FastifyReply, response: PawlResponse) {
    this.#reply = reply
    this.#response = response
  }

  async send(): Promise<Buffer | null> {
    return applyResponse(this.#reply, this.#response)
  }
}

/**
 * The reply of a handler that runs as an attempt. A payload sent through Fastify is held in `onSend` until
 * it is recorded; writes to `reply.raw`, hijacked or not, are held by a ResponseCapture.
 */
export class HandlerReply implements InterceptedReply, InterceptedResponse {
  readonly #reply: FastifyReply
  readonly #maxBody: number
  readonly #initial: ReadonlyMap<string, Header>
  readonly #runner: AttemptRunner
  readonly #capture: ResponseCapture
  #state: 'running' | 'sending' | 'finished' = 'running'

  constructor(
    runtime: RequestRuntime,
    options: RouteOptions<never>,
    reply: FastifyReply,
    admitted: AdmittedAttempt,
  ) {
    this.#reply = reply
    this.#maxBody = options.maxBody
    this.#initial = toHeaderMap(reply.getHeaders())
    const runner = new AttemptRunner(runtime, options, admitted)
    this.#runner = runner
    const decide = async (captured: CapturedResponse) =>
      this.#state === 'finished' ? 'send' : runner.finish(captured)
    this.#capture = new ResponseCapture(reply.raw, options.maxBody, decide, this.#initial)
  }

  /** Runs the handler. */
  start(run: () => void): void {
    this.#runner.start(this, () => run())
  }

  get handlerResponded(): boolean {
    return this.#state === 'finished' || this.#capture.handlerResponded
  }

  /** Sends through the raw response, so that a later reply of the handler still reaches `onSend`. */
  respondInstead(response: PawlResponse, handlerContinues?: boolean): void {
    this.#capture.respondInstead(response, handlerContinues)
  }

  async send(payload: unknown): Promise<unknown> {
    // An error after the outcome was recorded, or the handler has written to `reply.raw` itself.
    if (this.#state === 'finished' || this.#capture.headWritten) return payload
    // A second reply while the first is being sent: the first counts.
    if (this.#state === 'sending') return new Promise(() => {})
    if (!isPayload(payload)) throw invalidPayload(payload) // The error handler's reply calls `send` again.
    this.#state = 'sending'
    this.#capture.markAsSent()
    try {
      return await this.#record(unwrapResponse(this.#reply, payload))
    } catch (error) {
      this.#state = 'running'
      this.#capture.unmarkAsSent()
      throw error // The payload's stream failed. The error handler's reply calls `send` again.
    }
  }

  /** Records the reply, and resolves to the payload that Fastify sends. */
  async #record(payload: Exclude<Payload, Response>): Promise<unknown> {
    const reply = this.#reply
    const headers = this.#headers()
    const { body, send, discard } = await this.#buffer(payload)
    this.#state = 'finished'
    const decision = await this.#runner.finish({ status: reply.statusCode, headers, body })
    this.#capture.passThrough()
    if (decision === 'send') return send
    discard()
    for (const name of Object.keys(reply.getHeaders())) reply.removeHeader(name)
    for (const [name, value] of this.#initial.values()) reply.header(name, value)
    return applyResponse(reply, decision)
  }

  /**
   * The headers that the handler set or changed.
   * @throws the errors of invalid headers, which Node would throw only after the outcome is recorded
   */
  #headers(): Header[] {
    const headers = toHeaderMap(this.#reply.getHeaders())
    for (const [name, value] of headers.values()) {
      validateHeaderName(name)
      for (const line of [value].flat()) validateHeaderValue(name, line)
    }
    return [...headers]
      .filter(([name, [, value]]) => !isSameValue(this.#initial.get(name)?.[1], value))
      .map(([, header]) => header)
  }

  /**
   * Buffers a payload. `body`: the bytes to record, null if they are not stored. `send`: the payload to
   * send. `discard`: frees a payload that is not sent.
   */
  async #buffer(
    payload: Exclude<Payload, Response>,
  ): Promise<{ body: Buffer | null; send: unknown; discard: () => void }> {
    const discard = () => {}
    if (payload === null || payload === undefined) {
      return { body: Buffer.alloc(0), send: null, discard }
    }
    if (typeof payload === 'string' || Buffer.isBuffer(payload)) {
      const body = Buffer.from(payload as string)
      return { body: body.length > this.#maxBody ? null : body, send: payload, discard }
    }
    if (isEventStream(this.#reply.getHeader('content-type'))) {
      return { body: null, send: payload, discard: () => cancelStream(payload) }
    }
    const buffered = await bufferStream(toAsyncIterable(payload), this.#maxBody)
    if (buffered.kind === 'complete') return { body: buffered.body, send: buffered.body, discard }
    const stream = buffered.body
    const cancel = () => stream.return?.().catch(() => {})
    return { body: null, send: Readable.from(stream), discard: cancel }
  }
}

/** Sets status and headers of a response of Pawl on the reply, and returns its body as the payload. */
function applyResponse(reply: FastifyReply, response: PawlResponse): Buffer | null {
  const { status, headers, body } = response
  reply.code(status)
  for (const [name, value] of headers) reply.removeHeader(name).header(name, value)
  if (reply.hasHeader('access-control-allow-origin')) {
    const given = reply.getHeader('access-control-expose-headers')
    reply.header('access-control-expose-headers', corsExposedHeaders(given, response))
  }
  return body.length > 0 ? body : null
}

function isPayload(payload: unknown): payload is Payload {
  if (payload === null || payload === undefined || typeof payload === 'string') return true
  if (Buffer.isBuffer(payload) || isResponse(payload)) return true
  const { pipe, getReader } = payload as { pipe?: unknown; getReader?: unknown }
  return typeof pipe === 'function' || typeof getReader === 'function'
}

/** The error that Fastify would throw right after this hook; in Fastify 4 it would crash the process there. */
function invalidPayload(payload: unknown): Error {
  return Object.assign(
    new TypeError(
      `Attempted to send payload of invalid type '${typeof payload}'. Expected a string or Buffer.`,
    ),
    { code: 'FST_ERR_REP_INVALID_PAYLOAD_TYPE', statusCode: 500 },
  )
}

function isResponse(payload: unknown): payload is Response {
  return Object.prototype.toString.call(payload) === '[object Response]'
}

/** Moves status and headers of a web Response to the reply, as Fastify does it right after this hook. */
function unwrapResponse(reply: FastifyReply, payload: Payload): Exclude<Payload, Response> {
  if (!isResponse(payload)) return payload
  reply.code(payload.status)
  for (const [name, value] of payload.headers) reply.header(name, value)
  return payload.body
}

function toAsyncIterable(stream: NodeStream | ReadableStream): AsyncIterable<string | Uint8Array> {
  if (Symbol.asyncIterator in stream) return stream as AsyncIterable<Uint8Array>
  return new Readable().wrap(stream as NodeStream)
}

function cancelStream(stream: NodeStream | ReadableStream): void {
  if ('cancel' in stream) stream.cancel().catch(() => {})
  else if ('destroy' in stream) (stream as Readable).destroy()
}
