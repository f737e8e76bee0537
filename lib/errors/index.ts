/**
 * Every code a {@link PawlError} can carry. Each is documented in docs/errors.md.
 */
export type PawlErrorCode =
  | 'body-unreadable'
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
  | 'transaction-aborted'
  | 'value-invalid'
  | 'value-unkeepable'

/**
 * The error class of Pawl. `message` says what happened, `hint` what to do about it, and `code`
 * is stable across versions.
 */
export class PawlError extends Error {
  override readonly name: string = 'PawlError'
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

/**
 * The journal does not fit the code that replays it: a recorded step is now of another kind, or a new
 * step appeared where compensations had begun. Nothing was run and nothing was overwritten.
 */
export class DivergenceError extends PawlError {
  override readonly name = 'DivergenceError'

  constructor(message: string, hint: string) {
    super('divergence', message, hint)
  }
}

/**
 * A step with `atMostOnce` began in an earlier attempt, and nobody knows whether it took effect. It is
 * not run again. Catch this, ask whoever the step called what happened, and go on accordingly.
 */
export class StepInterruptedError extends PawlError {
  override readonly name = 'StepInterruptedError'
  /** The name of the step. */
  readonly step: string

  constructor(step: string) {
    super(
      'step-interrupted',
      `Step "${step}" began in an earlier attempt and was interrupted; it may or may not have taken effect.`,
      'It runs at most once: find out from whoever it called what happened.',
    )
    this.step = step
  }
}

/**
 * Throw it where trying again cannot help (a card that was declined). Thrown by a step, it is recorded,
 * and every later attempt sees the same failure; the attempt's answer is final, also if it is a 5xx.
 *
 * ```ts
 * throw new TerminalError('The card was declined.', { status: 402 })
 * ```
 */
export class TerminalError extends Error {
  override readonly name: string = 'TerminalError'
  /** The HTTP status that Express and Fastify answer with if nobody catches it. */
  readonly status: number
  /** The same, as some frameworks call it. */
  readonly statusCode: number
  /** That the framework may show the message to the client (Express, http-errors). */
  readonly expose = true

  /** @param options.status from 400 to 599; default 422 */
  constructor(message: string, options: { status?: number; cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.status = this.statusCode = options.status ?? 422
  }
}

/** The execution was cancelled. A workflow sees it thrown by whatever it begins next. */
export class CancelledError extends TerminalError {
  override readonly name = 'CancelledError'

  constructor(message = 'The execution was cancelled.') {
    super(message, { status: 409 })
  }
}

/** A workflow took longer than its `timeout`. It sees this thrown by whatever it begins next. */
export class WorkflowTimeoutError extends TerminalError {
  override readonly name = 'WorkflowTimeoutError'

  constructor(name: string, timeoutMs: number) {
    super(`Workflow "${name}" took longer than ${timeoutMs} ms.`, { status: 504 })
  }
}

/** A workflow ended with an error; `cause` is that error. */
export class WorkflowFailedError extends TerminalError {
  override readonly name = 'WorkflowFailedError'

  constructor(name: string, cause: unknown) {
    const why = cause instanceof Error ? cause.message : String(cause)
    super(`Workflow "${name}" failed: ${why}`, { status: 500, cause })
  }
}
