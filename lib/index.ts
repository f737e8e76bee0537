export { currentExecution } from './engine/current.ts'
export type { Execution, RunStep, RunTransaction } from './engine/execution.ts'
export type {
  RetryOptions,
  StepContext,
  StepOptions,
  TransactionOptions,
} from './engine/step-options.ts'
export {
  DivergenceError,
  PawlError,
  type PawlErrorCode,
  StepInterruptedError,
  TerminalError,
} from './errors.ts'
export type { ObservedExecution, StatusOptions } from './http/status.ts'
export type { StatusHandler } from './http/status-handler.ts'
export type { Logger } from './logger.ts'
export type { ByteSize, Duration } from './parse-options.ts'
export { type ExecutionName, type ExecutionState, Pawl, type PawlOptions } from './pawl.ts'
export { step, transaction } from './plain.ts'
export type { IsolationLevel, RunStatement, TransactionHost } from './store/transaction-host.ts'
