/**
 * Every code a {@link PawlError} can carry. Each is documented in docs/errors.md.
 */
export type PawlErrorCode =
  | 'body-unreadable'
  | 'execution-gone'
  | 'execution-missing'
  | 'fingerprint-invalid'
  | 'invalid-option'
  | 'not-started'
  | 'schema-missing'
  | 'schema-newer'
  | 'schema-outdated'
  | 'scope-invalid'
  | 'stopping'
  | 'store-refused'
  | 'store-unavailable'

/**
 * The one error class of Pawl. `message` says what happened, `hint` what to do about it, and `code`
 * is stable across versions.
 */
export class PawlError extends Error {
  override readonly name = 'PawlError'
  /** Stable and machine-readable; see docs/errors.md. */
  readonly code: PawlErrorCode
  /** What to do about it, in a sentence. */
  readonly hint: string

  constructor(code: PawlErrorCode, message: string, hint: string, cause?: unknown) {
    super(`${message} ${hint}`, cause === undefined ? undefined : { cause })
    this.code = code
    this.hint = hint
  }
}
