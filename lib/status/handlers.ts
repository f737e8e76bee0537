/** Serves the status endpoint: as a handler for Express and node:http, and as a function from Request to Response. */

import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { FetchRequestView } from '../adapters/fetch/fetch-request-view.ts'
import { toResponse } from '../adapters/fetch/response.ts'
import { NodeRequestView } from '../adapters/node/node-request-view.ts'
import { sendResponse } from '../adapters/node/send-response.ts'
import { handlerFailedResponse } from '../http/responses.ts'
import { StatusEndpoint, type StatusOptions, type StatusRuntime } from './endpoint.ts'
import { EVENT_STREAM_HEADERS } from './event-stream.ts'

/** A listener for Node's http server, and a route handler for Express. Errors go to `next`, if it is given. */
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
    const view = new NodeRequestView(request, response, request.url ?? '')
    const { method, url } = view
    const statusRequest = {
      method,
      url,
      header: view.header.bind(view),
      disconnectSignal: view.disconnectSignal(),
    }
    const respond = async () => {
      const reply = await endpoint.handle(request, statusRequest)
      if (statusRequest.disconnectSignal.aborted) return
      if (reply.kind === 'response') sendResponse(response, reply.response)
      else await sendEvents(response, reply.events, statusRequest.disconnectSignal)
    }
    respond().catch((error) => {
      // A started event stream can only be ended; its client connects again.
      if (response.headersSent) response.end()
      else if (next) next(error)
      else sendResponse(response, handlerFailedResponse())
      if (response.headersSent)
        runtime.logger.warn('sending the status of an execution failed', { error })
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
    const view = new FetchRequestView(request)
    const disconnect = new AbortController()
    const { method, url } = view
    const onDisconnect = () => disconnect.abort()
    if (request.signal.aborted) onDisconnect()
    request.signal.addEventListener('abort', onDisconnect, { once: true })
    const statusRequest = {
      method,
      url,
      header: view.header.bind(view),
      disconnectSignal: disconnect.signal,
    }
    const reply = await endpoint.handle(request, statusRequest)
    if (reply.kind === 'response') {
      const { body, ...head } = reply.response
      return toResponse({ ...head, body: method === 'HEAD' ? Buffer.alloc(0) : body })
    }
    const stream = toReadableStream(reply.events, onDisconnect, (error) =>
      runtime.logger.warn('sending the status of an execution failed', { error }),
    )
    return new Response(stream, { headers: EVENT_STREAM_HEADERS })
  }
}

async function sendEvents(
  response: ServerResponse,
  events: AsyncIterable<string>,
  disconnectSignal: AbortSignal,
): Promise<void> {
  for (const [name, value] of EVENT_STREAM_HEADERS) response.setHeader(name, value)
  response.flushHeaders()
  for await (const event of events) {
    if (response.write(event) || disconnectSignal.aborted) continue
    await once(response, 'drain', { signal: disconnectSignal }).catch(() => {}) // The client disconnected.
  }
  response.end()
}

/** @param onDisconnect called when the client cancels the stream */
function toReadableStream(
  events: AsyncGenerator<string, void>,
  onDisconnect: () => void,
  onError: (error: unknown) => void,
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
          onError(error)
          controller.close() // The client connects again.
        }
      },
      cancel: onDisconnect,
    },
    { highWaterMark: 0 },
  )
}
