/** Exports every error class of Pawl. */

export { CancelledError } from './cancelled-error.ts'
export { DivergenceError } from './divergence-error.ts'
export { PawlError, type PawlErrorCode } from './pawl-error.ts'
export { StepInterruptedError } from './step-interrupted-error.ts'
export { TerminalError } from './terminal-error.ts'
export { WorkflowFailedError } from './workflow-failed-error.ts'
export { WorkflowTimeoutError } from './workflow-timeout-error.ts'
