/** Converts between Response objects of the Fetch standard and the forms that Pawl records and sends. */

import type { CapturedResponse } from '../../http/attempt-runner.ts'
import { bufferStream } from '../../http/buffered-stream.ts'
import { type Header, isEventStream } from '../../http/headers.ts'
import { corsExposedHeaders, type PawlResponse } from '../../http/responses.ts'

/** A Response whose body was read up to the size limit. */
export interface BufferedResponse {
  captured: CapturedResponse
  /** An equal Response, with an unread body. */
  response: Response
  /** Cancels the body, if the response is not sent. */
  discard(): void
}

/**
 * Reads a response's body into memory, except an event stream.
 * @param maxBody the largest body that is buffered, in bytes
 * @param initial headers that were set before the handler, by lower-case name
 * @throws errors of the body's stream
 */
export async function bufferResponse(
  response: Response,
  maxBody: number,
  initial: ReadonlyMap<string, Header> = new Map(),
): Promise<BufferedResponse> {
  const { status, body } = response
  const headers = headersOf(response.headers).filter(
    ([name, value]) => String(initial.get(name)?.[1]) !== String(value),
  )
  const captured = { status, headers, body: null }
  if (!body) return { captured: { ...captured, body: Buffer.alloc(0) }, response, discard() {} }
  if (isEventStream(response.headers.get('content-type'))) {
    return { captured, response, discard: () => void body.cancel().catch(() => {}) }
  }
  const buffered = await bufferStream(body, maxBody)
  if (buffered.kind === 'complete') {
    const copy = new Response(toUint8Array(buffered.body), response)
    return { captured: { ...captured, body: buffered.body }, response: copy, discard() {} }
  }
  const chunks = buffered.body
  const discard = () => void chunks.return?.().catch(() => {})
  return { captured, response: new Response(toReadableStream(chunks), response), discard }
}

/** Converts a response of Pawl to a Response, with the headers that were set before the handler. */
export function toResponse(
  response: PawlResponse,
  initial: ReadonlyMap<string, Header> = new Map(),
): Response {
  const { status, headers, body } = response
  const result = new Headers()
  for (const [name, value] of [...initial.values(), ...headers]) {
    result.delete(name)
    for (const line of [value].flat()) result.append(name, line)
  }
  if (result.has('access-control-allow-origin')) {
    const name = 'access-control-expose-headers'
    result.set(name, corsExposedHeaders(result.get(name), response))
  }
  const empty = body.length === 0 || status === 204 || status === 205 || status === 304
  return new Response(empty ? null : toUint8Array(body), { status, headers: result })
}

/** Reads headers into a list. Set-Cookie keeps its separate lines; the lines of other headers are joined. */
export function headersOf(headers: Headers): Header[] {
  const cookies = headers.getSetCookie()
  const others = [...headers].filter(([name]) => name !== 'set-cookie')
  return cookies.length > 0 ? [...others, ['set-cookie', cookies]] : others
}

/** Converts chunks to a stream with backpressure: no chunk is read before the consumer asks for it. */
function toReadableStream(chunks: AsyncIterator<Buffer>): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await chunks.next()
        if (done) controller.close()
        else controller.enqueue(toUint8Array(value))
      },
      async cancel() {
        await chunks.return?.()
      },
    },
    { highWaterMark: 0 },
  )
}

/** Copies the bytes: a Buffer may share its memory with others, and standard APIs do not expect that. */
function toUint8Array(buffer: Buffer): Uint8Array<ArrayBuffer> {
  return new Uint8Array(buffer)
}
