/** The error that a cancelled workflow, and a caller that waits for its result, gets. */

import { TerminalError } from './terminal-error.ts'

/** The execution was cancelled. In a workflow, the next step or wait throws this error. */
export class CancelledError extends TerminalError {
  override readonly name = 'CancelledError'

  constructor(message = 'The execution was cancelled.') {
    super(message, { status: 409 })
  }
}
