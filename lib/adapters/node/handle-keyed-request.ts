/** Handles a keyed request for every framework that responds through Node's ServerResponse. */

import type { ServerResponse } from 'node:http'
import type { Execution } from '../../engine/execution.ts'
import { type AdmittedAttempt, admitRequest } from '../../http/admit-request.ts'
import { AttemptRunner } from '../../http/attempt-runner.ts'
import type { Header } from '../../http/headers.ts'
import type { ParsedKey } from '../../http/idempotency-key.ts'
import type { RequestView } from '../../http/request-view.ts'
import type { PawlResponse } from '../../http/responses.ts'
import type { RouteOptions } from '../../http/route-options.ts'
import type { RequestRuntime } from '../../http/runtime.ts'
import { ResponseCapture } from './response-capture.ts'

import { sendResponse } from './send-response.ts'

/** A request, its response, and the framework's ways to continue, as an adapter passes them. */
export interface NodeExchange<Request> {
  /** The framework's request object, which the functions in the options receive. */
  request: Request
  view: RequestView
  response: ServerResponse
  /** Headers that were set before the handler, by lower-case name. Default: those on the response. */
  initial?: ReadonlyMap<string, Header>
  /** Runs the handler; `execution` is undefined if the request is not protected. */
  run(execution?: Execution): void
  /** Responds in the handler's place. Default: sends through `response`. */
  respond?(pawlResponse: PawlResponse): void
  /** Passes a mistake of the app to its error handler. */
  fail(error: unknown): void
}

/** Admits a keyed request, then responds to it or runs its handler. Never rejects. */
export async function handleKeyedRequest<Request>(
  runtime: RequestRuntime,
  options: RouteOptions<Request>,
  exchange: NodeExchange<Request>,
  key: ParsedKey,
): Promise<void> {
  const { request, view, response, run, fail } = exchange
  const { respond = (pawlResponse) => sendResponse(response, pawlResponse) } = exchange
  try {
    const admission = await admitRequest(runtime, options, request, view, key)
    if (admission.kind === 'run') runAttempt(runtime, options, exchange, admission)
    else if (response.headersSent) return
    else if (admission.kind === 'respond') respond(admission.response)
    else if (admission.kind === 'unprotected') run()
  } catch (error) {
    if (!response.headersSent) fail(error)
  }
}

function runAttempt<Request>(
  runtime: RequestRuntime,
  options: RouteOptions<Request>,
  { response, initial, run }: NodeExchange<Request>,
  admitted: AdmittedAttempt,
): void {
  const runner = new AttemptRunner(runtime, options, admitted)
  const decide = runner.finish.bind(runner)
  runner.start(new ResponseCapture(response, options.maxBody, decide, initial), run)
}
