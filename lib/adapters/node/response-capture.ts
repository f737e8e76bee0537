import { type ServerResponse, validateHeaderValue } from 'node:http'
import type { Answer } from '../../http/responses.ts'
import type { Captured, Verdict } from '../../http/attempt-runner.ts'
import { type Header, isEventStream } from '../../http/headers.ts'
import {
  type Callback,
  type Chunk,
  headersSentError,
  isHttp2,
  type NativeMethods,
  nativeMethods,
  splitArguments,
  toBytes,
} from './server-response.ts'
import { currentHeaders, isSame, mergeHeaders } from './node-headers.ts'
import { seemOpen } from './hide-closed-state.ts'
import { send } from './send-response.ts'
import { shadowHeaders } from './detached-headers.ts'

const CAPTURE = Symbol('pawl.capture')

/** A response whose methods go by way of its Capture. */
interface Held extends ServerResponse {
  [CAPTURE]: Capture
}

/**
 * Holds what a handler answers until it may be seen, below every way to answer: `writeHead`, `write`
 * and `end` are recorded, and repeated in the same order once `decide` has resolved, so that headers
 * and framing come out as Node would have made them. Meanwhile the response looks sent to the
 * handler: `headersSent` and `writableEnded` are true, and headers can no longer be set.
 */
export class Capture {
  readonly #response: ServerResponse
  readonly #native: NativeMethods
  readonly #initial: ReadonlyMap<string, Header>
  readonly #maxBody: number
  readonly #decide: (captured: Captured) => Promise<Verdict>
  /** What the handler called, to be called again. */
  readonly #calls: (() => void)[] = []
  readonly #chunks: Buffer[] = []
  #size = 0
  #head: Pick<Captured, 'status' | 'headers'> | null = null
  #ended = false
  #onEnd: Callback | undefined
  #flows = false
  #needDrain = false
  #sealed = false
  /** A `close` event that came while the handler was in the middle of its answer. */
  #closed = false
  /** The response was answered for the handler, which goes on as if its client were there. */
  #goesOn = false
  #letGoOfSocket: () => void = () => {}
  /** `answered`: something else was sent in the handler's place. */
  #state: 'holding' | 'deciding' | 'open' | 'answered' = 'holding'

  /**
   * @param maxBody the most bytes of a body that are held
   * @param decide called once, with the whole response, or with its head if the body flows; must not
   * reject
   * @param initial the headers that were there before the handler, by lower-case name, where some are
   * not on the response yet
   */
  constructor(
    response: ServerResponse,
    maxBody: number,
    decide: (captured: Captured) => Promise<Verdict>,
    initial: ReadonlyMap<string, Header> = currentHeaders(response),
  ) {
    this.#response = response
    this.#maxBody = maxBody
    this.#decide = decide
    this.#native = nativeMethods(response)
    this.#initial = initial
    this.#install()
  }

  /** Whether the handler has answered, or its answer already flows. */
  get answered(): boolean {
    return this.#ended || this.#state !== 'holding'
  }

  /** Whether the handler has written to the response. */
  get begun(): boolean {
    return this.#head !== null
  }

  /** The answer is decided about elsewhere; until it is let go, the response looks sent. */
  seal(): void {
    this.#sealed = true
  }

  /** The response no longer looks sent, and is held as before. */
  unseal(): void {
    this.#sealed = false
  }

  /** What is written from here on has been decided about: it is sent, unless something else was. */
  letGo(): void {
    this.#sealed = false
    if (this.#state === 'holding') this.#state = 'open'
  }

  /**
   * Answers in the handler's place. What the handler answers later is still captured and decided
   * about, but not sent.
   * @param goesOn whether the handler shall not notice
   */
  answer(answer: Answer, goesOn = false): void {
    this.#goesOn = goesOn
    const response = this.#response
    const own = { statusCode: response.statusCode, ...reason(response) }
    const shadow = shadowHeaders(response)
    this.#state = 'answered'
    this.#calls.length = 0
    for (const name of response.getHeaderNames()) this.#native.removeHeader.call(response, name)
    for (const header of this.#initial.values()) this.#native.setHeader.call(response, ...header)
    send(response, answer, this.#native, this.#onEnd)
    if (!this.#ended) Object.assign(response, shadow, own)
    this.#letGoOfSocket()
    this.#releaseClose()
  }

  /** For every response the same functions, so that holding one costs no closures. */
  static readonly #overrides = {
    // Setting headers of a response that looks sent fails as it would in Node.
    setHeader(this: Held, ...args: Parameters<NativeMethods['setHeader']>) {
      return this[CAPTURE].#unsent('set').setHeader.apply(this, args)
    },
    appendHeader(this: Held, ...args: Parameters<NativeMethods['appendHeader']>) {
      return this[CAPTURE].#unsent('append').appendHeader.apply(this, args)
    },
    setHeaders(this: Held, ...args: Parameters<NativeMethods['setHeaders']>) {
      return this[CAPTURE].#unsent('set').setHeaders.apply(this, args)
    },
    removeHeader(this: Held, ...args: Parameters<NativeMethods['removeHeader']>) {
      return this[CAPTURE].#unsent('remove').removeHeader.apply(this, args)
    },
    writeHead(this: Held, ...args: Parameters<NativeMethods['writeHead']>) {
      const capture = this[CAPTURE]
      const { writeHead } = capture.#native
      if (capture.#state === 'open') return writeHead.apply(this, args)
      capture.#begin(args)
      capture.#record(() => writeHead.apply(this, args))
      capture.#flowIfEventStream()
      return this
    },
    /** Older compression, and express-session, ask for a head while Node has written none yet. */
    _implicitHeader(this: Held) {
      const capture = this[CAPTURE]
      if (capture.#head && capture.#state !== 'open') return
      this.writeHead(this.statusCode) // As in Node.
    },
    flushHeaders(this: Held) {
      const capture = this[CAPTURE]
      const { flushHeaders } = capture.#native
      if (capture.#state === 'open') return flushHeaders.call(this)
      capture.#implicitHead()
      capture.#record(() => flushHeaders.call(this))
      capture.#flowIfEventStream()
    },
    write(this: Held, ...args: unknown[]) {
      const capture = this[CAPTURE]
      if (capture.#state === 'open') return capture.#native.write.apply(this, args as never)
      return capture.#write(...splitArguments(args))
    },
    end(this: Held, ...args: unknown[]) {
      const capture = this[CAPTURE]
      if (capture.#state === 'open') return capture.#native.end.apply(this, args as never)
      capture.#end(...splitArguments(args))
      return this
    },
    emit(this: Held, event: string, ...args: unknown[]) {
      const capture = this[CAPTURE]
      // The client is gone, but the handler is in the middle of its answer, and the answer is still
      // wanted: a pipe would stop at this event. It comes when the answer is complete.
      const wanted = (capture.#head || capture.#goesOn) && !capture.#ended
      if (event === 'close' && wanted && capture.#state !== 'open') {
        capture.#closed = true
        if (capture.#goesOn) seemOpen(this, () => capture.#ended)
        return true
      }
      return capture.#native.emit.call(this, event, ...args)
    },
  }

  static readonly #looks = {
    headersSent: {
      configurable: true,
      get(this: Held) {
        const capture = this[CAPTURE]
        if (capture.#state === 'open') return native(this, 'headersSent')
        return capture.#sealed || capture.#head !== null
      },
    },
    writableEnded: {
      configurable: true,
      get(this: Held) {
        const capture = this[CAPTURE]
        if (capture.#state === 'open') return native(this, 'writableEnded')
        return capture.#sealed || capture.#ended
      },
    },
  }

  #install(): void {
    const response = this.#response as Held
    response[CAPTURE] = this
    Object.assign(response, Capture.#overrides)
    Object.defineProperties(response, Capture.#looks)
  }

  #unsent(verb: string): NativeMethods {
    if (this.#head && this.#state !== 'open') throw headersSentError(verb)
    return this.#native
  }

  /** The head is fixed from here on. Throws what Node would throw. */
  #begin(args: readonly unknown[]): void {
    if (this.#head) throw headersSentError('write')
    const response = this.#response
    const status = Number(args[0]) | 0
    if (status < 100 || status > 999) {
      throw Object.assign(new RangeError(`Invalid status code: ${args[0]}`), {
        code: 'ERR_HTTP_INVALID_STATUS_CODE',
      })
    }
    const message = typeof args[1] === 'string' ? args[1] : reason(response).statusMessage
    if (message) validateHeaderValue('statusMessage', message)
    const headers = mergeHeaders(response, typeof args[1] === 'string' ? args[2] : args[1])
    response.statusCode = status
    const there = new Set(headers.map(([name]) => name.toLowerCase()))
    const removed = [...this.#initial].filter(([name]) => !there.has(name))
    const changed = headers.filter(
      ([name, value]) => !isSame(this.#initial.get(name.toLowerCase())?.[1], value),
    )
    // Of a header without values Node writes no line.
    this.#head = { status, headers: [...changed, ...removed.map(([, [n]]): Header => [n, []])] }
  }

  /** Through the response and not directly: middleware that wrapped writeHead wants to be asked. */
  #implicitHead(): void {
    if (this.#head) return
    this.#response.writeHead(this.#response.statusCode)
    this.#calls.pop() // Node will come to it by itself, and may then know the body's length.
  }

  #write(chunk: Chunk, encoding: BufferEncoding | undefined, callback: Callback | undefined) {
    const response = this.#response
    if (this.#ended) {
      // An error in Node; it shall come from Node.
      this.#record(() => this.#native.write.call(response, chunk, encoding as never, callback))
      return false
    }
    const bytes = toBytes(chunk, encoding)
    this.#implicitHead()
    this.#record(() => {
      this.#native.write.call(response, bytes, encoding as never)
    })
    this.#collect(bytes)
    // The handler may wait for it before it goes on, and what it waits for is done: a copy is held.
    if (callback) process.nextTick(callback)
    this.#flowIfEventStream()
    if (this.#state === 'deciding') this.#needDrain = true
    return !this.#needDrain
  }

  #record(call: () => void): void {
    if (this.#state !== 'answered') this.#calls.push(call)
  }

  #end(
    chunk: Chunk | null | undefined,
    encoding: BufferEncoding | undefined,
    callback: Callback | undefined,
  ): void {
    const response = this.#response
    if (this.#ended) {
      this.#record(() => this.#native.end.call(response, chunk, encoding as never, callback))
      return
    }
    const bytes = chunk === null || chunk === undefined ? null : toBytes(chunk, encoding)
    this.#implicitHead()
    if (bytes) this.#collect(bytes)
    this.#ended = true
    this.#onEnd = callback
    this.#record(() => {
      // A string goes as a string: Node sends it in one piece with the head.
      const whole = typeof chunk === 'string' ? chunk : bytes
      this.#native.end.call(response, whole, encoding as never, callback)
    })
    if (!this.#flows) this.#finish(Buffer.concat(this.#chunks))
    if (this.#state === 'answered' && callback) process.nextTick(callback) // No event will come.
    if (this.#state === 'deciding') this.#holdSocket()
    this.#releaseClose()
  }

  /**
   * A handler that throws after it has answered: Express' final handler then destroys the socket,
   * which in Node comes too late to matter, since the answer is already on its way. So it shall here.
   */
  #holdSocket(): void {
    const response = this.#response
    const { socket } = response
    if (!socket || isHttp2(response)) return
    const { destroy } = socket
    let late: Parameters<typeof destroy> | null = null
    socket.destroy = (...args) => {
      late = args
      return socket
    }
    this.#letGoOfSocket = () => {
      socket.destroy = destroy
      if (!late) return
      const again = late
      response.once('finish', () => socket.destroy(...again))
    }
  }

  #collect(bytes: Buffer): void {
    const { status } = this.#head as Captured
    // These have no body, whatever the handler writes (RFC 9110, sections 9.3.2, 15.3.5, 15.4.5).
    if (this.#response.req.method === 'HEAD' || status === 204 || status === 304) return
    this.#size += bytes.length
    if (this.#size <= this.#maxBody) this.#chunks.push(bytes)
    else if (!this.#flows) this.#flow()
  }

  #flowIfEventStream(): void {
    if (this.#flows || this.#ended) return
    const type = this.#response.getHeader('content-type') ?? this.#headerOfHead('content-type')
    if (isEventStream(type)) this.#flow()
  }

  #headerOfHead(name: string): string | string[] | undefined {
    return this.#head?.headers.find((header) => header[0].toLowerCase() === name)?.[1]
  }

  #flow(): void {
    this.#flows = true
    this.#chunks.length = 0
    this.#finish(null)
  }

  async #finish(body: Buffer | null): Promise<void> {
    const holding = this.#state === 'holding'
    if (holding) this.#state = 'deciding'
    const verdict = await this.#decide({ ...(this.#head as Captured), body })
    // Something else was sent meanwhile: this was for the record only.
    if (!holding || this.#state === 'answered') return
    if (verdict !== 'send') return this.answer(verdict)
    this.#open()
  }

  #open(): void {
    this.#state = 'open'
    const response = this.#response
    response.statusCode = (this.#head as Captured).status
    try {
      for (const call of this.#calls) call()
    } catch (error) {
      response.destroy(error as Error)
    }
    this.#calls.length = 0
    if (this.#needDrain && !response.writableNeedDrain) response.emit('drain')
    this.#letGoOfSocket()
    this.#releaseClose()
  }

  #releaseClose(): void {
    if (!this.#closed) return
    this.#closed = false
    this.#native.emit.call(this.#response, 'close')
  }
}

/** HTTP/2 has none, and Node warns of whoever asks for it. */
function reason(response: ServerResponse): { statusMessage?: string } {
  return isHttp2(response) ? {} : { statusMessage: response.statusMessage }
}

function native(response: ServerResponse, name: 'headersSent' | 'writableEnded'): boolean {
  return Reflect.get(Object.getPrototypeOf(response), name, response)
}
