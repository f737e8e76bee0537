import type { ServerResponse } from 'node:http'
import type { Attempt } from '../engine/attempt.ts'
import type { Execution } from '../engine/execution.ts'
import type { Pawl } from '../pawl.ts'
import { type Admission, admit } from './admit.ts'
import { Capture } from './capture.ts'
import { Conclusion } from './conclude.ts'
import type { Body } from './fingerprint.ts'
import type { ParsedKey } from './idempotency-key.ts'
import { recoveredAttempt } from './recovery.ts'
import { type IncomingRequest, readBody } from './request-body.ts'
import type { BodyFailure, RequestView } from './request-view.ts'
import type { RouteOptions } from './route-options.ts'
import { type Selected, select } from './select.ts'
import { send } from './send.ts'

/** What an adapter gives for a framework that answers through Node's ServerResponse. */
export interface NodeExchange<Request> {
  /** The framework's request, for the app's functions. */
  request: Request
  view: RequestView
  response: ServerResponse
  /** Runs the handler; with an execution if the request is protected. */
  run(execution?: Execution): void
  /** Reports an error of the app's own making. */
  fail(error: unknown): void
}

/** A request of Node's http. */
export class NodeView implements RequestView {
  readonly #request: IncomingRequest
  readonly #response: ServerResponse
  readonly url: string

  /** @param url path and query as the client sent them */
  constructor(request: IncomingRequest, response: ServerResponse, url: string) {
    this.#request = request
    this.#response = response
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
    // Where the request did not come over a socket (serverless adapters, HTTP/2), or a middleware
    // gave it its key, there are no lines as they arrived.
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

  body(maxBytes: number): Promise<Body | BodyFailure> {
    return readBody(this.#request, maxBytes)
  }

  gone(): AbortSignal {
    return closeSignal(this.#response)
  }
}

/**
 * Whether a request is protected, and under which key: what a worker hands to the app again is, whatever
 * became of its headers.
 * @throws whatever the app's `key` and `skip` functions throw
 */
export function selectNode<Request>(
  pawl: Pawl,
  options: RouteOptions<Request>,
  { request, view, response }: Pick<NodeExchange<Request>, 'request' | 'view' | 'response'>,
): Selected {
  const recovered = recoveredAttempt(pawl, response.req)
  if (recovered) return { kind: 'keyed', key: { key: recovered.execution.key } }
  return select(options, request, view)
}

/** Runs one keyed request from its key to its answer. Never rejects. */
export async function handleKeyed<Request>(
  pawl: Pawl,
  options: RouteOptions<Request>,
  exchange: NodeExchange<Request>,
  key: ParsedKey,
): Promise<void> {
  const { request, view, response, run, fail } = exchange
  try {
    const attempt = recoveredAttempt(pawl, response.req)
    const admission: Admission = attempt
      ? { kind: 'run', attempt }
      : await admit(pawl, options, request, view, key)
    if (admission.kind === 'run') runAttempt(pawl, options, exchange, admission.attempt)
    else if (response.headersSent) return
    else if (admission.kind === 'answer') send(response, admission.answer)
    else if (admission.kind === 'unprotected') run()
  } catch (error) {
    if (!response.headersSent) fail(error)
  }
}

function runAttempt<Request>(
  pawl: Pawl,
  options: RouteOptions<Request>,
  { response, run }: NodeExchange<Request>,
  attempt: Attempt,
): void {
  const conclusion = new Conclusion(pawl, options, attempt)
  const decide = conclusion.conclude.bind(conclusion)
  conclusion.begin(new Capture(response, options.maxBody, decide), run)
}

function closeSignal(response: ServerResponse): AbortSignal {
  const controller = new AbortController()
  if (response.closed || response.destroyed) controller.abort()
  else response.once('close', () => controller.abort())
  return controller.signal
}
