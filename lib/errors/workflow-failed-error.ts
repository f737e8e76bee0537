/** The error that a caller gets who waits for the result of a workflow that failed. */

import { TerminalError } from './terminal-error.ts'

/** A workflow ended with an error; `cause` is that error. */
export class WorkflowFailedError extends TerminalError {
  override readonly name = 'WorkflowFailedError'

  constructor(name: string, cause: unknown) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    super(`Workflow "${name}" failed: ${reason}`, { status: 500, cause })
  }
}
