import { type Answer, exposedHeaders } from '../../http/responses.ts'
import type { Captured } from '../../http/attempt-runner.ts'
import { type Header, isEventStream } from '../../http/headers.ts'
import { holdStream } from '../../http/buffered-stream.ts'

/** A Response whose body has been read as far as it may be held. */
export interface HeldResponse {
  captured: Captured
  /** The same again, to be sent. */
  response: Response
  /** Lets go of a body that is not sent. */
  drop(): void
}

/**
 * @param initial headers that were there before the handler, by lower-case name
 * @throws what the body's stream throws
 */
export async function holdResponse(
  response: Response,
  maxBody: number,
  initial: ReadonlyMap<string, Header> = new Map(),
): Promise<HeldResponse> {
  const { status, body } = response
  const headers = headersOf(response.headers).filter(
    ([name, value]) => String(initial.get(name)?.[1]) !== String(value),
  )
  const captured = { status, headers, body: null }
  if (!body) return { captured: { ...captured, body: Buffer.alloc(0) }, response, drop() {} }
  if (isEventStream(response.headers.get('content-type'))) {
    return { captured, response, drop: () => void body.cancel().catch(() => {}) }
  }
  const held = await holdStream(body, maxBody)
  if (held.kind === 'whole') {
    const whole = new Response(bytesOf(held.body), response)
    return { captured: { ...captured, body: held.body }, response: whole, drop() {} }
  }
  const rest = held.body
  const drop = () => void rest.return?.().catch(() => {})
  return { captured, response: new Response(streamOf(rest), response), drop }
}

/** An answer of Pawl's own, on top of the headers that were there before. */
export function toResponse(
  answer: Answer,
  initial: ReadonlyMap<string, Header> = new Map(),
): Response {
  const { status, headers, body } = answer
  const result = new Headers()
  for (const [name, value] of [...initial.values(), ...headers]) {
    result.delete(name)
    for (const line of [value].flat()) result.append(name, line)
  }
  if (result.has('access-control-allow-origin')) {
    const name = 'access-control-expose-headers'
    result.set(name, exposedHeaders(result.get(name), answer))
  }
  const empty = body.length === 0 || status === 204 || status === 205 || status === 304
  return new Response(empty ? null : bytesOf(body), { status, headers: result })
}

/** With the lines of Set-Cookie kept apart; everything else comes joined. */
export function headersOf(headers: Headers): Header[] {
  const cookies = headers.getSetCookie()
  const others = [...headers].filter(([name]) => name !== 'set-cookie')
  return cookies.length > 0 ? [...others, ['set-cookie', cookies]] : others
}

/** With backpressure: no chunk is read before it is asked for. */
function streamOf(chunks: AsyncIterator<Buffer>): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await chunks.next()
        if (done) controller.close()
        else controller.enqueue(bytesOf(value))
      },
      async cancel() {
        await chunks.return?.()
      },
    },
    { highWaterMark: 0 },
  )
}

/** A Buffer may be a view of what is shared with others, which no standard API asks for. */
function bytesOf(buffer: Buffer): Uint8Array<ArrayBuffer> {
  return new Uint8Array(buffer)
}
