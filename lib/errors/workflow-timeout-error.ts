/** The error for a workflow that took longer than its `timeout`. */

import { TerminalError } from './terminal-error.ts'

/** A workflow took longer than its `timeout`. Its next step or wait throws this error. */
export class WorkflowTimeoutError extends TerminalError {
  override readonly name = 'WorkflowTimeoutError'

  constructor(name: string, timeoutMs: number) {
    super(`Workflow "${name}" took longer than ${timeoutMs} ms.`, { status: 504 })
  }
}
