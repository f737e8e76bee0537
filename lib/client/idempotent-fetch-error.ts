/** The error class of pawl/client, and the list of its codes. */

/** Every code that an {@link IdempotentFetchError} can carry. docs/client.md documents each of them. */
export type IdempotentFetchErrorCode =
  | 'body-not-repeatable'
  | 'expired'
  | 'invalid-option'
  | 'key-malformed'
  | 'no-answer'
  | 'persist-failed'

/**
 * An error that pawl/client itself throws. After `no-answer` and `expired` it is unknown what the server
 * did; with every other code nothing was sent.
 */
export class IdempotentFetchError extends Error {
  override readonly name = 'IdempotentFetchError'
  /** Stable and machine-readable; see docs/client.md. */
  readonly code: IdempotentFetchErrorCode
  /** The request's key. A later call with this `key` and the same request repeats the same operation. */
  readonly key: string | undefined
  /** How many times the request was sent. */
  readonly attempts: number

  constructor(
    code: IdempotentFetchErrorCode,
    message: string,
    details: { key?: string | undefined; attempts?: number; cause?: unknown } = {},
  ) {
    super(message, 'cause' in details ? { cause: details.cause } : undefined)
    this.code = code
    this.key = details.key
    this.attempts = details.attempts ?? 0
  }
}
