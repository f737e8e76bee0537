import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Attempt } from '../../engine/attempt.ts'
import type { Execution } from '../../engine/execution.ts'
import { type Admitted, admit } from '../../http/admit-request.ts'
import type { Answer } from '../../http/responses.ts'
import { Conclusion } from '../../http/attempt-runner.ts'
import type { Body } from '../../http/fingerprint.ts'
import type { Header } from '../../http/headers.ts'
import type { ParsedKey } from '../../http/idempotency-key.ts'
import type { BodyFailure, RequestView } from '../../http/request-view.ts'
import type { RouteOptions } from '../../http/route-options.ts'
import type { RequestRuntime } from '../../http/runtime.ts'
import { Capture } from './response-capture.ts'
import { recoveredAttempt } from './recovery.ts'
import { type BodyTap, readBody } from './request-body.ts'
import { send } from './send-response.ts'

/** What an adapter gives for a framework that answers through Node's ServerResponse. */
export interface NodeExchange<Request> {
  /** The framework's request, for the app's functions. */
  request: Request
  view: RequestView
  response: ServerResponse
  /** Headers that the framework will put on the response, and that the handler did not set. */
  initial?: ReadonlyMap<string, Header>
  /** Runs the handler; with an execution if the request is protected. */
  run(execution?: Execution): void
  /** Answers in the handler's place. Default: at once, through the response. */
  answer?(answer: Answer): void
  /** Reports an error of the app's own making. */
  fail(error: unknown): void
}

/** What was seen of a body before. */
interface SeenBody {
  /** Saw the bytes pass. */
  tap?: BodyTap | undefined
  /** What a parser made of it. */
  parsed?: unknown
}

/** A request of Node's http. */
export class NodeView implements RequestView {
  readonly #request: IncomingMessage
  readonly #response: ServerResponse
  readonly #seen: SeenBody
  readonly url: string

  /** @param url path and query as the client sent them */
  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    url: string,
    seen: SeenBody = {},
  ) {
    this.#request = request
    this.#response = response
    this.#seen = seen
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
    const { tap, parsed } = this.#seen
    return tap?.whole() ?? readBody(this.#request, maxBytes, parsed)
  }

  recovered(runtime: RequestRuntime): Attempt | undefined {
    return recoveredAttempt(runtime, this.#request)
  }

  gone(): AbortSignal {
    return closeSignal(this.#response)
  }
}

/** Runs one keyed request from its key to its answer, or to where its handler runs. Never rejects. */
export async function handleKeyed<Request>(
  runtime: RequestRuntime,
  options: RouteOptions<Request>,
  exchange: NodeExchange<Request>,
  key: ParsedKey,
): Promise<void> {
  const { request, view, response, run, fail } = exchange
  const { answer = (what) => send(response, what) } = exchange
  try {
    const admission = await admit(runtime, options, request, view, key)
    if (admission.kind === 'run') runAttempt(runtime, options, exchange, admission)
    else if (response.headersSent) return
    else if (admission.kind === 'answer') answer(admission.answer)
    else if (admission.kind === 'unprotected') run()
  } catch (error) {
    if (!response.headersSent) fail(error)
  }
}

function runAttempt<Request>(
  runtime: RequestRuntime,
  options: RouteOptions<Request>,
  { response, initial, run }: NodeExchange<Request>,
  admitted: Admitted,
): void {
  const conclusion = new Conclusion(runtime, options, admitted)
  const decide = conclusion.conclude.bind(conclusion)
  conclusion.begin(new Capture(response, options.maxBody, decide, initial), run)
}

function closeSignal(response: ServerResponse): AbortSignal {
  const controller = new AbortController()
  if (response.closed || response.destroyed) controller.abort()
  else response.once('close', () => controller.abort())
  return controller.signal
}
