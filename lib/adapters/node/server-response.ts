import type { ServerResponse } from 'node:http'

export type Callback = (error?: Error | null) => void
export type Chunk = string | Uint8Array

/** The methods of a response as they were before Pawl came, other middleware's wrappers included. */
export type NativeMethods = ReturnType<typeof nativeMethods>

export function nativeMethods(response: ServerResponse) {
  const { writeHead, write, end, emit, flushHeaders } = response
  const { setHeader, appendHeader, setHeaders, removeHeader } = response
  return {
    writeHead,
    write,
    end,
    emit,
    flushHeaders,
    setHeader,
    appendHeader,
    setHeaders,
    removeHeader,
  }
}

/** The names of the headers set so far, in the case in which they were set; HTTP/2 has only one. */
export function rawHeaderNames(response: ServerResponse): string[] {
  // Every OutgoingMessage has it; @types/node knows it of requests only.
  const { getRawHeaderNames } = response as unknown as { getRawHeaderNames?: () => string[] }
  return getRawHeaderNames?.call(response) ?? response.getHeaderNames()
}

/** Whether it is the response of a stream in a connection that it shares with others. */
export function isHttp2(response: ServerResponse): boolean {
  return response.req.httpVersionMajor >= 2
}

/** What Node throws when headers change after they were sent. */
export function headersSentError(verb: string): Error {
  return Object.assign(new Error(`Cannot ${verb} headers after they are sent to the client`), {
    code: 'ERR_HTTP_HEADERS_SENT',
  })
}

/** A copy of a chunk's bytes; throws what Node's write throws for anything else. */
export function toBytes(chunk: unknown, encoding: BufferEncoding | undefined): Buffer {
  if (typeof chunk === 'string') return Buffer.from(chunk, encoding)
  if (chunk instanceof Uint8Array) return Buffer.from(chunk)
  if (chunk === null) {
    throw Object.assign(new TypeError('May not write null values to stream'), {
      code: 'ERR_STREAM_NULL_VALUES',
    })
  }
  const message = `The "chunk" argument must be of type string or an instance of Buffer or Uint8Array. Received ${typeof chunk}`
  throw Object.assign(new TypeError(message), { code: 'ERR_INVALID_ARG_TYPE' })
}

/** The arguments of `write` and `end`, of which each but the last may be left out. */
export function splitArguments(
  args: readonly unknown[],
): [Chunk, BufferEncoding | undefined, Callback | undefined] {
  const [chunk, encoding, callback] = args
  if (typeof chunk === 'function') return [undefined as never, undefined, chunk as Callback]
  if (typeof encoding === 'function') return [chunk as Chunk, undefined, encoding as Callback]
  return [chunk as Chunk, encoding as BufferEncoding, callback as Callback]
}
