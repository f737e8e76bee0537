/** Implements RequestView for a request of Node's http module. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Attempt } from '../../engine/attempt.ts'
import type { RequestBody } from '../../http/fingerprint.ts'
import type { BodyFailure, RequestView } from '../../http/request-view.ts'
import type { RequestRuntime } from '../../http/runtime.ts'
import { recoveredAttempt } from './recovery.ts'
import { type BodyRecorder, readBody } from './request-body.ts'

/** The sources from which the body can be read, besides the stream itself. */
interface BodySources {
  /** Has recorded the bytes since they arrived. */
  recorder?: BodyRecorder | undefined
  /** The value of a body parser that ran before. */
  parsed?: unknown
}

export class NodeRequestView implements RequestView {
  readonly #request: IncomingMessage
  readonly #response: ServerResponse
  readonly #bodySources: BodySources
  #disconnectSignal: AbortSignal | undefined
  readonly url: string

  /** @param url path and query as the client sent them */
  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    url: string,
    bodySources: BodySources = {},
  ) {
    this.#request = request
    this.#response = response
    this.#bodySources = bodySources
    this.url = url
  }

  get method(): string {
    return this.#request.method ?? ''
  }

  header(name: string): string | undefined {
    const value = this.#request.headers[name]
    return Array.isArray(value) ? value.join(', ') : value
  }

  headerLines(name: string): readonly string[] {
    const value = this.#request.headers[name]
    if (value === undefined) return []
    // `headersDistinct` lacks the header if the request did not come over a socket (serverless adapters,
    // HTTP/2), or if a middleware set it.
    return this.#request.headersDistinct?.[name] ?? [value].flat()
  }

  allHeaders(): [name: string, value: string][] {
    const { rawHeaders } = this.#request
    const lines: [string, string][] = []
    for (let i = 0; i < rawHeaders.length; i += 2) {
      lines.push([rawHeaders[i] as string, rawHeaders[i + 1] as string])
    }
    return lines
  }

  readBody(maxBytes: number): Promise<RequestBody | BodyFailure> {
    const { recorder, parsed } = this.#bodySources
    return recorder?.readAll() ?? readBody(this.#request, maxBytes, parsed)
  }

  recoveredAttempt(runtime: RequestRuntime): Attempt | undefined {
    return recoveredAttempt(runtime, this.#request)
  }

  disconnectSignal(): AbortSignal {
    this.#disconnectSignal ??= closeSignal(this.#response)
    return this.#disconnectSignal
  }
}

function closeSignal(response: ServerResponse): AbortSignal {
  const controller = new AbortController()
  if (response.closed || response.destroyed) controller.abort()
  else response.once('close', () => controller.abort())
  return controller.signal
}
