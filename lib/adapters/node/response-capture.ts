/** Intercepts a Node ServerResponse: buffers what the handler writes until it may be sent. */

import { type ServerResponse, validateHeaderValue } from 'node:http'
import type { CapturedResponse, ResponseDecision } from '../../http/attempt-runner.ts'
import { type Header, isEventStream } from '../../http/headers.ts'
import type { PawlResponse } from '../../http/responses.ts'
import { detachedHeaderMethods } from './detached-headers.ts'
import { hideClosedState } from './hide-closed-state.ts'
import { currentHeaders, isSameValue, mergeHeaders } from './node-headers.ts'
import { sendResponse } from './send-response.ts'
import {
  type Callback,
  type Chunk,
  headersSentError,
  isHttp2,
  type OriginalMethods,
  originalMethods,
  splitArguments,
  toBytes,
} from './server-response.ts'

const CAPTURE = Symbol('pawl.capture')

/** A response whose methods call its ResponseCapture. */
interface CapturedServerResponse extends ServerResponse {
  [CAPTURE]: ResponseCapture
}

/**
 * Buffers the response of a handler until `decide` allows to send it. It overrides methods of the
 * ServerResponse itself, which every way to respond ends up calling. Calls of `writeHead`, `write` and
 * `end` are recorded and repeated in the same order afterwards, so that headers and framing come out as
 * Node would have made them. Meanwhile the response looks sent to the handler: `headersSent` and
 * `writableEnded` are true, and setting headers throws.
 */
export class ResponseCapture {
  readonly #response: ServerResponse
  readonly #original: OriginalMethods
  readonly #initial: ReadonlyMap<string, Header>
  readonly #maxBody: number
  readonly #decide: (captured: CapturedResponse) => Promise<ResponseDecision>
  /** The handler's calls, to be repeated on the original methods. */
  readonly #recordedCalls: (() => void)[] = []
  readonly #chunks: Buffer[] = []
  #bodySize = 0
  #recordedHead: Pick<CapturedResponse, 'status' | 'headers'> | null = null
  /** Whether the handler has called `end`. */
  #ended = false
  #endCallback: Callback | undefined
  /** The body is not buffered (any more), since it is too large or an event stream. */
  #streams = false
  #needDrain = false
  #markedAsSent = false
  /** A `close` event came while the handler was writing its response; it is emitted later. */
  #closePending = false
  /** Another response was sent, and the handler goes on as if its client still waited. */
  #handlerContinues = false
  #restoreSocketDestroy: () => void = () => {}
  /** `passing`: calls go to the original methods. `replaced`: another response was sent. */
  #state: 'buffering' | 'deciding' | 'passing' | 'replaced' = 'buffering'

  /**
   * @param maxBody the largest body that is buffered, in bytes
   * @param decide called once, with the complete response, or with the head alone if the body streams;
   * must not reject
   * @param initial the headers that were set before the handler, by lower-case name. Default: those on
   * the response
   */
  constructor(
    response: ServerResponse,
    maxBody: number,
    decide: (captured: CapturedResponse) => Promise<ResponseDecision>,
    initial: ReadonlyMap<string, Header> = currentHeaders(response),
  ) {
    this.#response = response
    this.#maxBody = maxBody
    this.#decide = decide
    this.#original = originalMethods(response)
    this.#initial = initial
    this.#install()
  }

  /** Whether the handler's response is complete, or is already being sent. */
  get handlerResponded(): boolean {
    return this.#ended || this.#state !== 'buffering'
  }

  /** Whether the handler has written at least the head of the response. */
  get headWritten(): boolean {
    return this.#recordedHead !== null
  }

  /** Makes the response look sent while other code decides about it, until `passThrough` or `unmarkAsSent`. */
  markAsSent(): void {
    this.#markedAsSent = true
  }

  /** Makes the response look unsent again. */
  unmarkAsSent(): void {
    this.#markedAsSent = false
  }

  /** Stops buffering: later writes are sent directly, unless another response was sent in the meantime. */
  passThrough(): void {
    this.#markedAsSent = false
    if (this.#state === 'buffering') this.#state = 'passing'
  }

  /**
   * Sends another response in the handler's place. A later response of the handler is still captured and
   * passed to `decide`, but not sent.
   * @param handlerContinues whether the handler must not notice
   */
  respondInstead(replacement: PawlResponse, handlerContinues = false): void {
    this.#handlerContinues = handlerContinues
    const response = this.#response
    const own = { statusCode: response.statusCode, ...statusMessageOf(response) }
    const headerMethods = detachedHeaderMethods(response)
    this.#state = 'replaced'
    this.#recordedCalls.length = 0
    for (const name of response.getHeaderNames()) this.#original.removeHeader.call(response, name)
    for (const header of this.#initial.values()) this.#original.setHeader.call(response, ...header)
    sendResponse(response, replacement, this.#original, this.#endCallback)
    if (!this.#ended) Object.assign(response, headerMethods, own)
    this.#restoreSocketDestroy()
    this.#emitPendingClose()
  }

  /** All responses share these functions, so that a capture creates no closures. */
  static readonly #methodOverrides = {
    // Once the response looks sent, these four throw the error that Node would throw.
    setHeader(this: CapturedServerResponse, ...args: Parameters<OriginalMethods['setHeader']>) {
      return this[CAPTURE].#originalUnlessSent('set').setHeader.apply(this, args)
    },
    appendHeader(
      this: CapturedServerResponse,
      ...args: Parameters<OriginalMethods['appendHeader']>
    ) {
      return this[CAPTURE].#originalUnlessSent('append').appendHeader.apply(this, args)
    },
    setHeaders(this: CapturedServerResponse, ...args: Parameters<OriginalMethods['setHeaders']>) {
      return this[CAPTURE].#originalUnlessSent('set').setHeaders.apply(this, args)
    },
    removeHeader(
      this: CapturedServerResponse,
      ...args: Parameters<OriginalMethods['removeHeader']>
    ) {
      return this[CAPTURE].#originalUnlessSent('remove').removeHeader.apply(this, args)
    },
    writeHead(this: CapturedServerResponse, ...args: Parameters<OriginalMethods['writeHead']>) {
      const capture = this[CAPTURE]
      const { writeHead } = capture.#original
      if (capture.#state === 'passing') return writeHead.apply(this, args)
      capture.#fixHead(args)
      capture.#record(() => writeHead.apply(this, args))
      capture.#streamIfEventStream()
      return this
    },
    /** Older versions of compression, and express-session, call this internal method of Node. */
    _implicitHeader(this: CapturedServerResponse) {
      const capture = this[CAPTURE]
      if (capture.#recordedHead && capture.#state !== 'passing') return
      this.writeHead(this.statusCode) // As in Node.
    },
    flushHeaders(this: CapturedServerResponse) {
      const capture = this[CAPTURE]
      const { flushHeaders } = capture.#original
      if (capture.#state === 'passing') return flushHeaders.call(this)
      capture.#writeImplicitHead()
      capture.#record(() => flushHeaders.call(this))
      capture.#streamIfEventStream()
    },
    write(this: CapturedServerResponse, ...args: unknown[]) {
      const capture = this[CAPTURE]
      if (capture.#state === 'passing') return capture.#original.write.apply(this, args as never)
      return capture.#write(...splitArguments(args))
    },
    end(this: CapturedServerResponse, ...args: unknown[]) {
      const capture = this[CAPTURE]
      if (capture.#state === 'passing') return capture.#original.end.apply(this, args as never)
      capture.#end(...splitArguments(args))
      return this
    },
    emit(this: CapturedServerResponse, event: string, ...args: unknown[]) {
      const capture = this[CAPTURE]
      // The client disconnected while the handler writes its response. A pipe would stop at this event,
      // but the response is still needed for the record. So the event is emitted when `end` was called.
      const isDeferred = (capture.#recordedHead || capture.#handlerContinues) && !capture.#ended
      if (event === 'close' && isDeferred && capture.#state !== 'passing') {
        capture.#closePending = true
        if (capture.#handlerContinues) hideClosedState(this, () => capture.#ended)
        return true
      }
      return capture.#original.emit.call(this, event, ...args)
    },
  }

  static readonly #stateOverrides = {
    headersSent: {
      configurable: true,
      get(this: CapturedServerResponse) {
        const capture = this[CAPTURE]
        if (capture.#state === 'passing') return originalState(this, 'headersSent')
        return capture.#markedAsSent || capture.#recordedHead !== null
      },
    },
    writableEnded: {
      configurable: true,
      get(this: CapturedServerResponse) {
        const capture = this[CAPTURE]
        if (capture.#state === 'passing') return originalState(this, 'writableEnded')
        return capture.#markedAsSent || capture.#ended
      },
    },
  }

  #install(): void {
    const response = this.#response as CapturedServerResponse
    response[CAPTURE] = this
    Object.assign(response, ResponseCapture.#methodOverrides)
    Object.defineProperties(response, ResponseCapture.#stateOverrides)
  }

  #originalUnlessSent(verb: string): OriginalMethods {
    if (this.#recordedHead && this.#state !== 'passing') throw headersSentError(verb)
    return this.#original
  }

  /** Records status and headers, which can no longer change. Throws the errors that Node would throw. */
  #fixHead(args: readonly unknown[]): void {
    if (this.#recordedHead) throw headersSentError('write')
    const response = this.#response
    const status = Number(args[0]) | 0
    if (status < 100 || status > 999) {
      throw Object.assign(new RangeError(`Invalid status code: ${args[0]}`), {
        code: 'ERR_HTTP_INVALID_STATUS_CODE',
      })
    }
    const message = typeof args[1] === 'string' ? args[1] : statusMessageOf(response).statusMessage
    if (message) validateHeaderValue('statusMessage', message)
    const headers = mergeHeaders(response, typeof args[1] === 'string' ? args[2] : args[1])
    response.statusCode = status
    const present = new Set(headers.map(([name]) => name.toLowerCase()))
    const removed = [...this.#initial].filter(([name]) => !present.has(name))
    const changed = headers.filter(
      ([name, value]) => !isSameValue(this.#initial.get(name.toLowerCase())?.[1], value),
    )
    // A removed header is recorded without values, for which Node writes no line.
    this.#recordedHead = {
      status,
      headers: [...changed, ...removed.map(([, [n]]): Header => [n, []])],
    }
  }

  /** Calls the method on the response, so that middleware that wrapped `writeHead` is called too. */
  #writeImplicitHead(): void {
    if (this.#recordedHead) return
    this.#response.writeHead(this.#response.statusCode)
    this.#recordedCalls.pop() // Node calls it itself when the body is written, and may then know the length.
  }

  #write(chunk: Chunk, encoding: BufferEncoding | undefined, callback: Callback | undefined) {
    const response = this.#response
    if (this.#ended) {
      // A write after `end`: Node itself reports this error when the call is repeated.
      this.#record(() => this.#original.write.call(response, chunk, encoding as never, callback))
      return false
    }
    const bytes = toBytes(chunk, encoding)
    this.#writeImplicitHead()
    this.#record(() => {
      this.#original.write.call(response, bytes, encoding as never)
    })
    this.#collect(bytes)
    // The handler may wait for this callback before it goes on. The chunk is copied, so it can be called.
    if (callback) process.nextTick(callback)
    this.#streamIfEventStream()
    if (this.#state === 'deciding') this.#needDrain = true
    return !this.#needDrain
  }

  #record(call: () => void): void {
    if (this.#state !== 'replaced') this.#recordedCalls.push(call)
  }

  #end(
    chunk: Chunk | null | undefined,
    encoding: BufferEncoding | undefined,
    callback: Callback | undefined,
  ): void {
    const response = this.#response
    if (this.#ended) {
      this.#record(() => this.#original.end.call(response, chunk, encoding as never, callback))
      return
    }
    const bytes = chunk === null || chunk === undefined ? null : toBytes(chunk, encoding)
    this.#writeImplicitHead()
    if (bytes) this.#collect(bytes)
    this.#ended = true
    this.#endCallback = callback
    this.#record(() => {
      // A string stays a string: Node then sends it in one piece with the head.
      const whole = typeof chunk === 'string' ? chunk : bytes
      this.#original.end.call(response, whole, encoding as never, callback)
    })
    if (!this.#streams) this.#decideAndSend(Buffer.concat(this.#chunks))
    if (this.#state === 'replaced' && callback) process.nextTick(callback) // Nothing else will call it.
    if (this.#state === 'deciding') this.#deferSocketDestroy()
    this.#emitPendingClose()
  }

  /**
   * Delays `socket.destroy` until the response is sent. If a handler throws after it has responded,
   * Express' final handler destroys the socket. Without Pawl the response is already on its way by then.
   */
  #deferSocketDestroy(): void {
    const response = this.#response
    const { socket } = response
    if (!socket || isHttp2(response)) return
    const { destroy } = socket
    let deferred: Parameters<typeof destroy> | null = null
    socket.destroy = (...args) => {
      deferred = args
      return socket
    }
    this.#restoreSocketDestroy = () => {
      socket.destroy = destroy
      if (!deferred) return
      const args = deferred
      response.once('finish', () => socket.destroy(...args))
    }
  }

  #collect(bytes: Buffer): void {
    const { status } = this.#recordedHead as CapturedResponse
    // These responses have no body, even if the handler writes one (RFC 9110, sections 9.3.2, 15.3.5, 15.4.5).
    if (this.#response.req.method === 'HEAD' || status === 204 || status === 304) return
    this.#bodySize += bytes.length
    if (this.#bodySize <= this.#maxBody) this.#chunks.push(bytes)
    else if (!this.#streams) this.#startStreaming()
  }

  #streamIfEventStream(): void {
    if (this.#streams || this.#ended) return
    const type = this.#response.getHeader('content-type') ?? this.#recordedHeader('content-type')
    if (isEventStream(type)) this.#startStreaming()
  }

  #recordedHeader(name: string): string | string[] | undefined {
    return this.#recordedHead?.headers.find((header) => header[0].toLowerCase() === name)?.[1]
  }

  #startStreaming(): void {
    this.#streams = true
    this.#chunks.length = 0
    this.#decideAndSend(null)
  }

  async #decideAndSend(body: Buffer | null): Promise<void> {
    const wasBuffering = this.#state === 'buffering'
    if (wasBuffering) this.#state = 'deciding'
    const decision = await this.#decide({ ...(this.#recordedHead as CapturedResponse), body })
    // If another response was sent in the meantime, `decide` was called only to record this one.
    if (!wasBuffering || this.#state === 'replaced') return
    if (decision !== 'send') return this.respondInstead(decision)
    this.#sendRecorded()
  }

  #sendRecorded(): void {
    this.#state = 'passing'
    const response = this.#response
    response.statusCode = (this.#recordedHead as CapturedResponse).status
    try {
      for (const call of this.#recordedCalls) call()
    } catch (error) {
      response.destroy(error as Error)
    }
    this.#recordedCalls.length = 0
    if (this.#needDrain && !response.writableNeedDrain) response.emit('drain')
    this.#restoreSocketDestroy()
    this.#emitPendingClose()
  }

  #emitPendingClose(): void {
    if (!this.#closePending) return
    this.#closePending = false
    this.#original.emit.call(this.#response, 'close')
  }
}

/** Empty for HTTP/2, which has no status message; Node prints a warning if it is read there. */
function statusMessageOf(response: ServerResponse): { statusMessage?: string } {
  return isHttp2(response) ? {} : { statusMessage: response.statusMessage }
}

function originalState(response: ServerResponse, name: 'headersSent' | 'writableEnded'): boolean {
  return Reflect.get(Object.getPrototypeOf(response), name, response)
}
