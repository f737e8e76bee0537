import type { IncomingMessage } from 'node:http'
import type { Body } from '../../http/fingerprint.ts'
import type { BodyFailure } from '../../http/request-view.ts'

/**
 * The request's body: its bytes if nobody has read them yet, what a parser made of them otherwise.
 * After this the request is as it was before: the stream still holds every byte and its end, so
 * that whatever reads it next finds what it expects.
 *
 * @param maxBytes more than this is refused
 * @param parsed what a parser made of it, if one came first
 */
export async function readBody(
  request: IncomingMessage,
  maxBytes: number,
  parsed: unknown,
): Promise<Body | BodyFailure> {
  if (!hasBody(request)) return { raw: [] }
  if (wasRead(request)) return parsedBody(request, parsed)
  if (Number(request.headers['content-length']) > maxBytes) return 'too-large'
  return new BodyTap(request, maxBytes).whole()
}

/** Whether somebody has begun to read the body, so that its bytes are gone. */
export function wasRead(request: IncomingMessage): boolean {
  return request.readableDidRead || request.readableEnded
}

/** RFC 9112, section 6.3: a body is announced by Content-Length or Transfer-Encoding. */
export function hasBody(request: IncomingMessage): boolean {
  if (request.httpVersionMajor >= 2) return true
  if (request.headers['transfer-encoding'] !== undefined) return true
  return Number(request.headers['content-length'] ?? 0) > 0
}

function parsedBody(request: IncomingMessage, parsed: unknown): Body | BodyFailure {
  if (parsed instanceof Uint8Array) return { raw: [parsed], decoded: true }
  // Somebody read the bytes and left no trace of them. An empty fingerprint would make every body
  // the same request. A parsed multipart form leaves its files out of `body`: the same.
  const multipart = /^multipart\//i.test(request.headers['content-type'] ?? '')
  if (parsed === undefined || multipart) return 'consumed'
  return { parsed }
}

/**
 * Watches chunks on their way into the stream's buffer and lets them pass: whoever reads the body
 * finds what it expects.
 */
export class BodyTap {
  readonly #request: IncomingMessage
  readonly #maxBytes: number
  readonly #push: IncomingMessage['push']
  readonly #chunks: Uint8Array[] = []
  #size = 0
  #asking = false
  #result: Body | BodyFailure | undefined
  #settle: ((result: Body | BodyFailure) => void) | undefined
  readonly #abort = () => this.#done('aborted')

  /** @param maxBytes more than this is refused */
  constructor(request: IncomingMessage, maxBytes: number) {
    this.#request = request
    this.#maxBytes = maxBytes
    this.#push = request.push
    if (request.readableLength > 0) {
      // Arrived before us: look at it and put it back. The end cannot be lost in between, since the
      // stream checks for it only in the next tick, when the bytes are back.
      const early = request.read() as Buffer
      request.unshift(early)
      this.#take(early, request.readableEncoding ?? undefined)
    }
    if (request.complete) {
      this.#end()
      return
    }
    request.on('close', this.#abort)
    request.push = (chunk, encoding) => this.#pass(chunk, encoding)
  }

  /**
   * Asks for all of the body although nobody reads it. Nothing is consumed, so `end` cannot be emitted
   * before whoever reads the body listens for it.
   */
  whole(): Promise<Body | BodyFailure> {
    if (this.#result) return Promise.resolve(this.#result)
    this.#asking = true
    return new Promise((resolve) => {
      this.#settle = resolve
      // The socket may have been paused when the buffer was full; nothing else would wake it.
      this.#request._read(0)
    })
  }

  #pass(chunk: Uint8Array | string | null, encoding: BufferEncoding | undefined): boolean {
    if (chunk === null) {
      this.#end()
      return this.#push.call(this.#request, null)
    }
    this.#take(chunk, encoding)
    const wanted = this.#push.call(this.#request, chunk, encoding)
    if (this.#size <= this.#maxBytes) return wanted || this.#asking
    this.#done('too-large')
    this.#chunks.length = 0
    return wanted && !this.#asking
  }

  #take(chunk: Uint8Array | string, encoding: BufferEncoding | undefined): void {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk
    this.#chunks.push(bytes)
    this.#size += bytes.length
  }

  #end(): void {
    this.#done(this.#size > this.#maxBytes ? 'too-large' : { raw: this.#chunks })
  }

  #done(result: Body | BodyFailure): void {
    this.#request.push = this.#push
    this.#request.off('close', this.#abort)
    this.#result = result
    this.#settle?.(result)
  }
}
