import { validateHeaderName, validateHeaderValue } from 'node:http'
import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import type { Admitted } from '../../http/admit-request.ts'
import { type Answer, exposedHeaders } from '../../http/responses.ts'
import { type Captured, Conclusion, type Responding } from '../../http/attempt-runner.ts'
import { type Header, isEventStream } from '../../http/headers.ts'
import { holdStream } from '../../http/buffered-stream.ts'
import type { RouteOptions } from '../../http/route-options.ts'
import type { RequestRuntime } from '../../http/runtime.ts'
import { Capture } from '../node/response-capture.ts'
import { headerMap, isSame } from '../node/node-headers.ts'

type NodeStream = NodeJS.ReadableStream

/** What Fastify accepts for sending once everything is serialized, as far as it is known. */
type Payload = string | Buffer | NodeStream | ReadableStream | Response | null | undefined

/** A reply whose bytes, as they leave `onSend`, are Pawl's business. */
export interface GuardedReply {
  /** Takes a payload on its way out, and gives what goes out in its place. */
  send(payload: unknown): Promise<unknown>
}

/** A reply that is an answer of Pawl's own. */
export class AnsweredReply implements GuardedReply {
  readonly #reply: FastifyReply
  readonly #answer: Answer

  constructor(reply: FastifyReply, answer: Answer) {
    this.#reply = reply
    this.#answer = answer
  }

  async send(): Promise<Buffer | null> {
    return put(this.#reply, this.#answer)
  }
}

/**
 * The reply of an attempt that runs. Where the handler answers through Fastify, the payload is held in
 * `onSend`; where it writes to `reply.raw`, hijacked or not, a Capture holds that.
 */
export class RunningReply implements GuardedReply, Responding {
  readonly #reply: FastifyReply
  readonly #maxBody: number
  readonly #initial: ReadonlyMap<string, Header>
  readonly #conclusion: Conclusion
  readonly #capture: Capture
  #state: 'running' | 'answering' | 'concluded' = 'running'

  constructor(
    runtime: RequestRuntime,
    options: RouteOptions<never>,
    reply: FastifyReply,
    admitted: Admitted,
  ) {
    this.#reply = reply
    this.#maxBody = options.maxBody
    this.#initial = headerMap(reply.getHeaders())
    const conclusion = new Conclusion(runtime, options, admitted)
    this.#conclusion = conclusion
    const decide = async (captured: Captured) =>
      this.#state === 'concluded' ? 'send' : conclusion.conclude(captured)
    this.#capture = new Capture(reply.raw, options.maxBody, decide, this.#initial)
  }

  /** Runs the handler. */
  begin(run: () => void): void {
    this.#conclusion.begin(this, () => run())
  }

  get answered(): boolean {
    return this.#state === 'concluded' || this.#capture.answered
  }

  /** On the raw response, so that what the handler sends later still comes by here. */
  answer(answer: Answer, goesOn?: boolean): void {
    this.#capture.answer(answer, goesOn)
  }

  async send(payload: unknown): Promise<unknown> {
    // Something went wrong after the outcome was recorded, or the handler wrote the answer itself.
    if (this.#state === 'concluded' || this.#capture.begun) return payload
    // A second answer while the first is on its way out: the first counts.
    if (this.#state === 'answering') return new Promise(() => {})
    if (!isPayload(payload)) throw invalidPayload(payload) // The answer to it comes by here.
    this.#state = 'answering'
    this.#capture.seal()
    try {
      return await this.#conclude(unwrapped(this.#reply, payload))
    } catch (error) {
      this.#state = 'running'
      this.#capture.unseal()
      throw error // Of the payload's stream. What the error handler makes of it comes by here.
    }
  }

  async #conclude(payload: Exclude<Payload, Response>): Promise<unknown> {
    const reply = this.#reply
    const headers = this.#headers()
    const { body, send, drop } = await this.#hold(payload)
    this.#state = 'concluded'
    const verdict = await this.#conclusion.conclude({ status: reply.statusCode, headers, body })
    this.#capture.letGo()
    if (verdict === 'send') return send
    drop()
    for (const name of Object.keys(reply.getHeaders())) reply.removeHeader(name)
    for (const [name, value] of this.#initial.values()) reply.header(name, value)
    return put(reply, verdict)
  }

  /**
   * What the handler set or changed.
   * @throws what Node would throw once the outcome is recorded
   */
  #headers(): Header[] {
    const headers = headerMap(this.#reply.getHeaders())
    for (const [name, value] of headers.values()) {
      validateHeaderName(name)
      for (const line of [value].flat()) validateHeaderValue(name, line)
    }
    return [...headers]
      .filter(([name, [, value]]) => !isSame(this.#initial.get(name)?.[1], value))
      .map(([, header]) => header)
  }

  /** The bytes for the record (null: they flow), and what is sent. */
  async #hold(
    payload: Exclude<Payload, Response>,
  ): Promise<{ body: Buffer | null; send: unknown; drop: () => void }> {
    const drop = () => {}
    if (payload === null || payload === undefined) {
      return { body: Buffer.alloc(0), send: null, drop }
    }
    if (typeof payload === 'string' || Buffer.isBuffer(payload)) {
      const body = Buffer.from(payload as string)
      return { body: body.length > this.#maxBody ? null : body, send: payload, drop }
    }
    if (isEventStream(this.#reply.getHeader('content-type'))) {
      return { body: null, send: payload, drop: () => giveUp(payload) }
    }
    const held = await holdStream(iterable(payload), this.#maxBody)
    if (held.kind === 'whole') return { body: held.body, send: held.body, drop }
    const rest = held.body
    return { body: null, send: Readable.from(rest), drop: () => rest.return?.().catch(() => {}) }
  }
}

/** Sets an answer on top of the headers that the reply already has. */
function put(reply: FastifyReply, answer: Answer): Buffer | null {
  const { status, headers, body } = answer
  reply.code(status)
  for (const [name, value] of headers) reply.removeHeader(name).header(name, value)
  if (reply.hasHeader('access-control-allow-origin')) {
    const given = reply.getHeader('access-control-expose-headers')
    reply.header('access-control-expose-headers', exposedHeaders(given, answer))
  }
  return body.length > 0 ? body : null
}

function isPayload(payload: unknown): payload is Payload {
  if (payload === null || payload === undefined || typeof payload === 'string') return true
  if (Buffer.isBuffer(payload) || isResponse(payload)) return true
  const { pipe, getReader } = payload as { pipe?: unknown; getReader?: unknown }
  return typeof pipe === 'function' || typeof getReader === 'function'
}

/** What Fastify throws right after this hook; Fastify 4 then lets the process die of it. */
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

/** A web Response is taken apart as Fastify does it right after this hook. */
function unwrapped(reply: FastifyReply, payload: Payload): Exclude<Payload, Response> {
  if (!isResponse(payload)) return payload
  reply.code(payload.status)
  for (const [name, value] of payload.headers) reply.header(name, value)
  return payload.body
}

function iterable(stream: NodeStream | ReadableStream): AsyncIterable<string | Uint8Array> {
  if (Symbol.asyncIterator in stream) return stream as AsyncIterable<Uint8Array>
  return new Readable().wrap(stream as NodeStream)
}

function giveUp(stream: NodeStream | ReadableStream): void {
  if ('cancel' in stream) stream.cancel().catch(() => {})
  else if ('destroy' in stream) (stream as Readable).destroy()
}
