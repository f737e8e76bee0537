import type { IncomingMessage } from 'node:http'
import type { Body } from './fingerprint.ts'
import type { BodyFailure } from './request-view.ts'

/** A request as it comes from Node, and as body parsers leave it. */
export interface IncomingRequest extends IncomingMessage {
  body?: unknown
}

/**
 * The request's body: its bytes if nobody has read them yet, what a parser made of them otherwise.
 * After this the request is as it was before: the stream still holds every byte and its end, so
 * that whatever reads it next finds what it expects.
 *
 * @param maxBytes more than this is refused
 */
export async function readBody(
  request: IncomingRequest,
  maxBytes: number,
): Promise<Body | BodyFailure> {
  if (!hasBody(request)) return { raw: [] }
  if (request.readableDidRead || request.readableEnded) return parsedBody(request)
  if (Number(request.headers['content-length']) > maxBytes) return 'too-large'
  return holdBody(request, maxBytes)
}

/** RFC 9112, section 6.3: a body is announced by Content-Length or Transfer-Encoding. */
function hasBody(request: IncomingMessage): boolean {
  if (request.httpVersionMajor >= 2) return true
  if (request.headers['transfer-encoding'] !== undefined) return true
  return Number(request.headers['content-length'] ?? 0) > 0
}

function parsedBody(request: IncomingRequest): Body | BodyFailure {
  // Somebody read the bytes and left no trace of them. An empty fingerprint would make every body
  // the same request. A parsed multipart form leaves its files out of `body`: the same.
  if (request.body instanceof Uint8Array) return { raw: [request.body], decoded: true }
  const multipart = /^multipart\//i.test(request.headers['content-type'] ?? '')
  if (request.body === undefined || multipart) return 'consumed'
  return { parsed: request.body }
}

/**
 * Watches chunks on their way into the stream's buffer and lets them pass, but asks for more although
 * nobody reads: the handler starts when all of the body is there. Nothing is consumed, so `end`
 * cannot be emitted before whoever reads the body listens for it.
 */
function holdBody(request: IncomingRequest, maxBytes: number): Promise<Body | BodyFailure> {
  return new Promise((resolve) => {
    const chunks: Uint8Array[] = []
    let size = 0
    const push = request.push
    const done = (result: Body | BodyFailure) => {
      request.push = push
      request.off('close', aborted)
      resolve(result)
    }
    const aborted = () => done('aborted')
    const take = (chunk: Uint8Array | string, encoding?: BufferEncoding) => {
      const bytes = typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk
      chunks.push(bytes)
      size += bytes.length
    }
    if (request.readableLength > 0) {
      // Arrived before us: look at it and put it back. The end cannot be lost in between, since the
      // stream checks for it only in the next tick, when the bytes are back.
      const early = request.read() as Buffer
      request.unshift(early)
      take(early, request.readableEncoding ?? undefined)
    }
    if (request.complete) return done(size > maxBytes ? 'too-large' : { raw: chunks })
    request.on('close', aborted)
    request.push = (chunk, encoding) => {
      if (chunk === null) {
        done(size > maxBytes ? 'too-large' : { raw: chunks })
        return push.call(request, null)
      }
      take(chunk, encoding)
      push.call(request, chunk, encoding)
      if (size > maxBytes) {
        done('too-large')
        return false
      }
      return true
    }
    // The socket may have been paused when the buffer was full; nothing else would wake it.
    request._read(0)
  })
}
