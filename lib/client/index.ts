/** The entry point of pawl/client: a fetch with idempotency keys and retries. */

export { createIdempotentFetch, type IdempotentFetchOptions } from './create-idempotent-fetch.ts'
export type { IdempotentFetch, IdempotentResponse } from './idempotent-fetch.ts'
export { IdempotentFetchError, type IdempotentFetchErrorCode } from './idempotent-fetch-error.ts'
export type { AttemptInfo, CallInfo, GiveUpReason, KeyOptions, RetryOptions } from './options.ts'
export type { PendingRequest, Persistence, ResumableFetch, Resumed } from './pending-requests.ts'
export type { IdempotentRequestInit } from './repeatable-request.ts'
export { RetryBudget } from './retry-budget.ts'
