/** Every code an {@link IdempotentFetchError} can carry. Each is documented in docs/client.md. */
export type IdempotentFetchErrorCode =
  | 'body-not-repeatable'
  | 'expired'
  | 'invalid-option'
  | 'key-malformed'
  | 'no-answer'
  | 'persist-failed'

/**
 * What the client throws by itself. Only `no-answer` and `expired` leave open what the server did;
 * with every other code nothing was sent.
 */
export class IdempotentFetchError extends Error {
  override readonly name = 'IdempotentFetchError'
  /** Stable and machine-readable; see docs/client.md. */
  readonly code: IdempotentFetchErrorCode
  /** The request's key: a later call with this `key` and the same request is still the same one. */
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
