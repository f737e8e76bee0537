/** The error that an app throws where a retry cannot help. */

/**
 * Throw this error where a retry cannot help (a card that was declined). When a step throws it, Pawl
 * records it, and every later attempt sees the same failure. The response of the attempt is final, also
 * if its status is a 5xx.
 *
 * ```ts
 * throw new TerminalError('The card was declined.', { status: 402 })
 * ```
 */
export class TerminalError extends Error {
  override readonly name: string = 'TerminalError'
  /** The HTTP status that Express and Fastify respond with if the app does not catch the error. */
  readonly status: number
  /** The same value as `status`, under the name that some frameworks read. */
  readonly statusCode: number
  /** Tells the framework that it may show the message to the client (Express, http-errors). */
  readonly expose = true

  /** @param options.status from 400 to 599; default 422 */
  constructor(message: string, options: { status?: number; cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.status = this.statusCode = options.status ?? 422
  }
}
