/** Knowledge about Node's ServerResponse: its methods, argument forms, errors and HTTP/2 variant. */

import type { ServerResponse } from 'node:http'

export type Callback = (error?: Error | null) => void
export type Chunk = string | Uint8Array

/** The methods of a response before Pawl replaces them; earlier middleware may have wrapped them. */
export type OriginalMethods = ReturnType<typeof originalMethods>

export function originalMethods(response: ServerResponse) {
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

/** The names of the headers set so far, in the case in which they were set (HTTP/2: lower case). */
export function rawHeaderNames(response: ServerResponse): string[] {
  // Every OutgoingMessage has this method; @types/node declares it for requests only.
  const { getRawHeaderNames } = response as unknown as { getRawHeaderNames?: () => string[] }
  return getRawHeaderNames?.call(response) ?? response.getHeaderNames()
}

/** Whether the response belongs to an HTTP/2 stream, which shares its connection with others. */
export function isHttp2(response: ServerResponse): boolean {
  return response.req.httpVersionMajor >= 2
}

/** The error that Node throws when headers change after they were sent. */
export function headersSentError(verb: string): Error {
  return Object.assign(new Error(`Cannot ${verb} headers after they are sent to the client`), {
    code: 'ERR_HTTP_HEADERS_SENT',
  })
}

/** Copies the bytes of a chunk. For other values it throws the errors that Node's `write` throws. */
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

/** Splits the arguments of `write` and `end`, in which chunk and encoding are optional. */
export function splitArguments(
  args: readonly unknown[],
): [Chunk, BufferEncoding | undefined, Callback | undefined] {
  const [chunk, encoding, callback] = args
  if (typeof chunk === 'function') return [undefined as never, undefined, chunk as Callback]
  if (typeof encoding === 'function') return [chunk as Chunk, undefined, encoding as Callback]
  return [chunk as Chunk, encoding as BufferEncoding, callback as Callback]
}
