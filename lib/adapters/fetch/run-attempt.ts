/** Runs an attempt whose handler returns a Response of the Fetch standard. */

import type { AdmittedAttempt } from '../../http/admit-request.ts'
import { AttemptRunner, type InterceptedResponse } from '../../http/attempt-runner.ts'
import type { Header } from '../../http/headers.ts'
import { executionUri } from '../../http/problem.ts'
import { handlerFailedResponse, type PawlResponse } from '../../http/responses.ts'
import type { RouteOptions } from '../../http/route-options.ts'
import type { RequestRuntime } from '../../http/runtime.ts'
import { bufferResponse, toResponse } from './response.ts'
import { responseFromThrown } from './thrown-response.ts'

export interface FetchAttempt {
  runtime: RequestRuntime
  options: RouteOptions<never>
  admitted: AdmittedAttempt
  /** Headers that were set before the handler, by lower-case name. */
  initial?: ReadonlyMap<string, Header>
  handle(): Promise<Response>
}

/** Runs the handler, and resolves to the Response to send. Never rejects. */
export function runFetchAttempt(run: FetchAttempt): Promise<Response> {
  const { runtime, options, admitted, initial, handle } = run
  const runner = new AttemptRunner(runtime, options, admitted)
  const execution = admitted.attempt.execution.id
  let isReplaced = false
  let handlerResponded = false
  let resolve!: (response: Response) => void
  const sent = new Promise<Response>((settle) => {
    resolve = settle
  })
  const intercepted: InterceptedResponse = {
    get handlerResponded() {
      return handlerResponded
    },
    respondInstead(replacement: PawlResponse) {
      isReplaced = true
      resolve(toResponse(replacement, initial))
    },
  }

  const runHandler = async (): Promise<Response> => {
    const response = await handle().catch(responseToError)
    const buffered = await bufferResponse(response, options.maxBody, initial).catch((error) =>
      bufferResponse(responseToError(error), options.maxBody),
    )
    handlerResponded = true
    const decision = await runner.finish(buffered.captured)
    if (isReplaced || decision !== 'send') buffered.discard()
    return decision === 'send' ? buffered.response : toResponse(decision, initial)
  }

  const responseToError = (error: unknown): Response => {
    const response = responseFromThrown(error)
    if (response) return response
    runtime.logger.warn('a handler threw', { error, execution })
    return toResponse(handlerFailedResponse(executionUri(execution)))
  }

  runner.start(intercepted, () => {
    runHandler().then(resolve)
  })
  return sent
}
