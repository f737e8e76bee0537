import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { toResponse } from '../adapters/fetch/response.ts'
import { FetchView } from '../adapters/fetch/fetch-request-view.ts'
import { NodeView } from '../adapters/node/handle-keyed-request.ts'
import { send } from '../adapters/node/send-response.ts'
import { handlerFailed } from '../http/responses.ts'
import { StatusEndpoint, type StatusOptions, type StatusRuntime } from './endpoint.ts'
import { EVENT_STREAM_HEADERS } from './event-stream.ts'

/** A listener of Node's http, and a route handler of Express: errors go to `next`, if there is one. */
export type StatusHandler<Request> = (
  request: Request,
  response: ServerResponse,
  next?: (error?: unknown) => void,
) => void

/** @throws PawlError `invalid-option` */
export function statusHandler<Request extends IncomingMessage>(
  runtime: StatusRuntime,
  options: StatusOptions<Request>,
): StatusHandler<Request> {
  const endpoint = new StatusEndpoint(runtime, options, 'statusHandler()')

  return (request, response, next) => {
    const view = new NodeView(request, response, request.url ?? '')
    const { method, url } = view
    const question = { method, url, header: view.header.bind(view), gone: view.gone() }
    const respond = async () => {
      const reply = await endpoint.reply(request, question)
      if (question.gone.aborted) return
      if (reply.kind === 'answer') send(response, reply.answer)
      else await sendEvents(response, reply.events, question.gone)
    }
    respond().catch((error) => {
      // An event stream just ends: its client connects again.
      if (response.headersSent) response.end()
      else if (next) next(error)
      else send(response, handlerFailed())
      if (response.headersSent) runtime.logger.warn('a status could not be told', { error })
    })
  }
}

/** @throws PawlError `invalid-option` */
export function statusResponse(
  runtime: StatusRuntime,
  options: StatusOptions<Request>,
): (request: Request) => Promise<Response> {
  const endpoint = new StatusEndpoint(runtime, options, 'statusResponse()')

  return async (request) => {
    const view = new FetchView(request)
    const gone = new AbortController()
    const { method, url } = view
    const stop = () => gone.abort()
    if (request.signal.aborted) stop()
    request.signal.addEventListener('abort', stop, { once: true })
    const question = { method, url, header: view.header.bind(view), gone: gone.signal }
    const reply = await endpoint.reply(request, question)
    if (reply.kind === 'answer') {
      const { body, ...head } = reply.answer
      return toResponse({ ...head, body: method === 'HEAD' ? Buffer.alloc(0) : body })
    }
    const stream = eventStream(reply.events, stop, (error) =>
      runtime.logger.warn('a status could not be told', { error }),
    )
    return new Response(stream, { headers: EVENT_STREAM_HEADERS })
  }
}

async function sendEvents(
  response: ServerResponse,
  events: AsyncIterable<string>,
  gone: AbortSignal,
): Promise<void> {
  for (const [name, value] of EVENT_STREAM_HEADERS) response.setHeader(name, value)
  response.flushHeaders()
  for await (const event of events) {
    if (response.write(event) || gone.aborted) continue
    await once(response, 'drain', { signal: gone }).catch(() => {}) // Or it is gone.
  }
  response.end()
}

/** @param stop called when nobody reads any more */
function eventStream(
  events: AsyncGenerator<string, void>,
  stop: () => void,
  failed: (error: unknown) => void,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const encoder = new TextEncoder()
  return new ReadableStream(
    {
      async pull(controller) {
        try {
          const { done, value } = await events.next()
          if (done) controller.close()
          else controller.enqueue(encoder.encode(value))
        } catch (error) {
          failed(error)
          controller.close() // Its client connects again.
        }
      },
      cancel: stop,
    },
    { highWaterMark: 0 },
  )
}
