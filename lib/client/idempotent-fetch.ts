import type { IdempotentRequestInit, RepeatableRequest } from './repeatable-request.ts'
import type { Result } from './retry.ts'

/** A response that says how it came about. */
export type IdempotentResponse = Response & {
  /** Whether the server answered from its record, without running the request (again). */
  readonly replayed: boolean
  /** How many times the request was sent. */
  readonly attempts: number
  /** The key it was sent with. */
  readonly key: string | undefined
}

/** fetch, but safe to retry, and retried. */
export type IdempotentFetch = (
  input: string | URL | Request,
  init?: IdempotentRequestInit,
) => Promise<IdempotentResponse>

/** One request on its way through the client. */
export interface Sender {
  prepare(input: string | URL | Request, init?: IdempotentRequestInit): Promise<RepeatableRequest>
  /** Carries a request through all of its attempts. */
  send(request: RepeatableRequest): Promise<Result<IdempotentResponse>>
}
