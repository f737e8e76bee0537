/** The types of the fetch that pawl/client provides, and of the responses that it returns. */

import type { IdempotentRequestInit, RepeatableRequest } from './repeatable-request.ts'
import type { Result } from './retry.ts'

/** A response that tells how it was obtained. */
export type IdempotentResponse = Response & {
  /** Whether the server replayed a recorded response instead of running the request. */
  readonly replayed: boolean
  /** How many times the request was sent. */
  readonly attempts: number
  /** The key that the request was sent with. */
  readonly key: string | undefined
}

/** Like fetch, but adds idempotency keys and retries. */
export type IdempotentFetch = (
  input: string | URL | Request,
  init?: IdempotentRequestInit,
) => Promise<IdempotentResponse>

/** Prepares and sends requests with retries, for a store of pending requests. */
export interface Sender {
  /** Reads the body and chooses the key. */
  prepare(input: string | URL | Request, init?: IdempotentRequestInit): Promise<RepeatableRequest>
  /** Sends a request until its response is final, or a limit is reached. */
  send(request: RepeatableRequest): Promise<Result<IdempotentResponse>>
}
