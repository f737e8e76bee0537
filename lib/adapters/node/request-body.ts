/** Reads the body of a Node request in a way that the handler can still read it afterwards. */

import type { IncomingMessage } from 'node:http'
import type { RequestBody } from '../../http/fingerprint.ts'
import type { BodyFailure } from '../../http/request-view.ts'

/**
 * Reads a request's body: its bytes if no other code has read them yet, otherwise the parser's value.
 * Afterwards the stream still holds every byte and its end, so that the next reader gets all of it.
 *
 * @param maxBytes the largest body that is read; a larger one is `'too-large'`
 * @param parsed the value of a body parser that ran before, if any
 */
export async function readBody(
  request: IncomingMessage,
  maxBytes: number,
  parsed: unknown,
): Promise<RequestBody | BodyFailure> {
  if (!hasBody(request)) return { raw: [] }
  if (wasRead(request)) return parsedBody(request, parsed)
  if (Number(request.headers['content-length']) > maxBytes) return 'too-large'
  return new BodyRecorder(request, maxBytes).readAll()
}

/** Whether other code has started to read the body, so that its bytes are gone. */
export function wasRead(request: IncomingMessage): boolean {
  return request.readableDidRead || request.readableEnded
}

/** RFC 9112, section 6.3: a body is announced by Content-Length or Transfer-Encoding. */
export function hasBody(request: IncomingMessage): boolean {
  if (request.httpVersionMajor >= 2) return true
  if (request.headers['transfer-encoding'] !== undefined) return true
  return Number(request.headers['content-length'] ?? 0) > 0
}

function parsedBody(request: IncomingMessage, parsed: unknown): RequestBody | BodyFailure {
  if (parsed instanceof Uint8Array) return { raw: [parsed], decoded: true }
  // Other code read the bytes and left no parsed value. Without the body in their fingerprints, all bodies
  // would be the same request. A parsed multipart form is the same case: `body` does not have its files.
  const multipart = /^multipart\//i.test(request.headers['content-type'] ?? '')
  if (parsed === undefined || multipart) return 'consumed'
  return { parsed }
}

/**
 * Records the chunks of a body as they enter the stream's buffer. It consumes nothing, so that the handler
 * reads the body as usual.
 */
export class BodyRecorder {
  readonly #request: IncomingMessage
  readonly #maxBytes: number
  readonly #push: IncomingMessage['push']
  readonly #chunks: Uint8Array[] = []
  #size = 0
  #fetchAll = false
  #result: RequestBody | BodyFailure | undefined
  #resolveReadAll: ((result: RequestBody | BodyFailure) => void) | undefined
  readonly #abort = () => this.#resolve('aborted')

  /** @param maxBytes the largest body that is recorded; a larger one is `'too-large'` */
  constructor(request: IncomingMessage, maxBytes: number) {
    this.#request = request
    this.#maxBytes = maxBytes
    this.#push = request.push
    if (request.readableLength > 0) {
      // These bytes arrived earlier: read them and put them back. The end cannot be emitted in between,
      // since the stream checks for it only in the next tick, when the bytes are back.
      const early = request.read() as Buffer
      request.unshift(early)
      this.#record(early, request.readableEncoding ?? undefined)
    }
    if (request.complete) {
      this.#end()
      return
    }
    request.on('close', this.#abort)
    request.push = (chunk, encoding) => this.#onPush(chunk, encoding)
  }

  /**
   * Makes the stream fetch the whole body although no reader asks for it. Nothing is consumed, so `end`
   * cannot be emitted before the reader listens for it.
   */
  readAll(): Promise<RequestBody | BodyFailure> {
    if (this.#result) return Promise.resolve(this.#result)
    this.#fetchAll = true
    return new Promise((resolve) => {
      this.#resolveReadAll = resolve
      // The socket may have been paused when the buffer was full; nothing else would wake it.
      this.#request._read(0)
    })
  }

  #onPush(chunk: Uint8Array | string | null, encoding: BufferEncoding | undefined): boolean {
    if (chunk === null) {
      this.#end()
      return this.#push.call(this.#request, null)
    }
    this.#record(chunk, encoding)
    const wantsMore = this.#push.call(this.#request, chunk, encoding)
    if (this.#size <= this.#maxBytes) return wantsMore || this.#fetchAll
    this.#resolve('too-large')
    this.#chunks.length = 0
    return wantsMore && !this.#fetchAll
  }

  #record(chunk: Uint8Array | string, encoding: BufferEncoding | undefined): void {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk
    this.#chunks.push(bytes)
    this.#size += bytes.length
  }

  #end(): void {
    this.#resolve(this.#size > this.#maxBytes ? 'too-large' : { raw: this.#chunks })
  }

  #resolve(result: RequestBody | BodyFailure): void {
    this.#request.push = this.#push
    this.#request.off('close', this.#abort)
    this.#result = result
    this.#resolveReadAll?.(result)
  }
}
