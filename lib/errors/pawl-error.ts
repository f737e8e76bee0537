/** The error class of Pawl, and the list of its codes. */

/** Every code that a {@link PawlError} can carry. docs/errors.md documents each of them. */
export type PawlErrorCode =
  | 'body-unreadable'
  | 'deadlock'
  | 'decryption-failed'
  | 'divergence'
  | 'execution-gone'
  | 'execution-missing'
  | 'execution-parked'
  | 'fingerprint-invalid'
  | 'input-invalid'
  | 'invalid-option'
  | 'key-reused'
  | 'limit-exceeded'
  | 'migration-blocked'
  | 'migration-failed'
  | 'no-execution'
  | 'no-state'
  | 'no-transaction'
  | 'not-started'
  | 'object-deadlock'
  | 'read-only'
  | 'recovery-impossible'
  | 'result-timed-out'
  | 'schema-missing'
  | 'schema-newer'
  | 'schema-outdated'
  | 'scope-invalid'
  | 'step-interrupted'
  | 'step-nested'
  | 'step-timed-out'
  | 'stopping'
  | 'store-refused'
  | 'store-unavailable'
  | 'superseded'
  | 'pool-exhausted'
  | 'transaction-aborted'
  | 'value-invalid'
  | 'value-unkeepable'

/**
 * An error that Pawl throws. `message` says what happened, `hint` what to do about it, and `code` is
 * stable across versions.
 */
export class PawlError extends Error {
  override readonly name: string = 'PawlError'
  /** Stable and machine-readable; see docs/errors.md. */
  readonly code: PawlErrorCode
  /** What to do about the error, in a sentence. */
  readonly hint: string

  constructor(code: PawlErrorCode, message: string, hint: string, cause?: unknown) {
    super(`${message} ${hint}`, cause === undefined ? undefined : { cause })
    this.code = code
    this.hint = hint
  }
}
