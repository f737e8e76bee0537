/** The error of a statement whose effect is not known yet, and when it will be. */

/**
 * A statement of which it is not known whether it has taken effect, or will.
 *
 * - `busy`: no connection was to be had in time; nothing was sent, and nothing takes effect
 * - `connection`: the connection broke, or could not be opened
 * - `timeout`: PostgreSQL has not answered in time; the statement is being cancelled
 */
export class StatementError extends Error {
  constructor(
    readonly kind: 'busy' | 'connection' | 'timeout',
    message: string,
    /** Resolves once the statement has taken effect or cannot any more, as far as that can be seen. */
    public ended: Promise<void> = Promise.resolve(),
    cause?: unknown,
  ) {
    super(message, { cause })
    this.name = 'StatementError'
  }
}

/** Resolves once the statement that failed with this error, or with a cause of it, has ended. */
export async function statementEnded(error: unknown): Promise<void> {
  await statementErrorOf(error)?.ended
}

/** Notes that an operation which failed with `error` was sent before too, and failed with `earlier`. */
export function alsoSentBefore(error: unknown, earlier: readonly unknown[]): void {
  const last = statementErrorOf(error)
  if (!last || earlier.length === 0) return
  last.ended = Promise.all([last.ended, ...earlier.map(statementEnded)]).then(() => {})
}

function statementErrorOf(error: unknown): StatementError | undefined {
  let layer = error
  while (layer instanceof Error && !(layer instanceof StatementError)) layer = layer.cause
  return layer as StatementError | undefined
}
