export { RetryBudget } from './budget.ts'
export { IdempotentFetchError, type IdempotentFetchErrorCode } from './error.ts'
export {
  createIdempotentFetch,
  type IdempotentFetch,
  type IdempotentFetchOptions,
  type IdempotentResponse,
} from './fetch.ts'
export type { AttemptInfo, CallInfo, GiveUpReason, KeyOptions, RetryOptions } from './options.ts'
export type { PendingRequest, Persistence, ResumableFetch, Resumed } from './pending.ts'
export type { IdempotentRequestInit } from './request.ts'
