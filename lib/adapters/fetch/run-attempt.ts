import type { Admitted } from '../../http/admit-request.ts'
import { type Answer, handlerFailed } from '../../http/responses.ts'
import { Conclusion, type Responding } from '../../http/attempt-runner.ts'
import type { Header } from '../../http/headers.ts'
import type { RouteOptions } from '../../http/route-options.ts'
import type { RequestRuntime } from '../../http/runtime.ts'
import { holdResponse, toResponse } from './response.ts'
import { thrownResponse } from './thrown-response.ts'

export interface FetchAttempt {
  runtime: RequestRuntime
  options: RouteOptions<never>
  admitted: Admitted
  /** Headers that were there before the handler. */
  initial?: ReadonlyMap<string, Header>
  handle(): Promise<Response>
}

/** Runs a handler that gives a Response, and resolves to what is sent. Never rejects. */
export function runFetchAttempt(run: FetchAttempt): Promise<Response> {
  const { runtime, options, admitted, initial, handle } = run
  const conclusion = new Conclusion(runtime, options, admitted)
  const execution = admitted.attempt.execution.id
  let answeredForIt = false
  let answered = false
  let resolve!: (response: Response) => void
  const sent = new Promise<Response>((settle) => {
    resolve = settle
  })
  const responding: Responding = {
    get answered() {
      return answered
    },
    answer(answer: Answer) {
      answeredForIt = true
      resolve(toResponse(answer, initial))
    },
  }

  const respond = async (): Promise<Response> => {
    const response = await handle().catch(failed)
    const held = await holdResponse(response, options.maxBody, initial).catch((error) =>
      holdResponse(failed(error), options.maxBody),
    )
    answered = true
    const verdict = await conclusion.conclude(held.captured)
    if (answeredForIt || verdict !== 'send') held.drop()
    return verdict === 'send' ? held.response : toResponse(verdict, initial)
  }

  const failed = (error: unknown): Response => {
    const response = thrownResponse(error)
    if (response) return response
    runtime.logger.warn('a handler threw', { error, execution })
    return toResponse(handlerFailed(`urn:uuid:${execution}`))
  }

  conclusion.begin(responding, () => {
    respond().then(resolve)
  })
  return sent
}
