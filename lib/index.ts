export { currentExecution } from './engine/current.ts'
export type { Execution, RunStep, RunTransaction } from './engine/execution.ts'
export type {
  RetryOptions,
  StepContext,
  StepOptions,
  TransactionOptions,
} from './engine/step-options.ts'
export {
  CancelledError,
  DivergenceError,
  PawlError,
  type PawlErrorCode,
  StepInterruptedError,
  TerminalError,
  WorkflowFailedError,
  WorkflowTimeoutError,
} from './errors.ts'
export type { ExecutionName, ExecutionState } from './execution-name.ts'
export type { ObservedExecution, StatusOptions } from './http/status.ts'
export type { StatusHandler } from './http/status-handler.ts'
export type { Logger } from './logger.ts'
export type { ByteSize, Duration } from './parse-options.ts'
export { Pawl } from './pawl.ts'
export type { PawlOptions } from './pawl-options.ts'
export { step, transaction } from './plain.ts'
export type { IsolationLevel, RunStatement, TransactionHost } from './store/transaction-host.ts'
export type { WorkflowCode, WorkflowOptions } from './workflow/definition.ts'
export type { WorkflowHandle, WorkflowStatus } from './workflow/handle.ts'
export type {
  CallOptions,
  KeyedObject,
  ObjectOf,
  ObjectOptions,
  ReadableObjectOptions,
} from './workflow/object.ts'
export type { ObjectExecution, ReaderExecution } from './workflow/object-execution.ts'
export type { ObjectState, ReadonlyState } from './workflow/object-state.ts'
export type { Backlog, Queue, QueueOptions } from './workflow/queue.ts'
export type { ScheduleOptions, ScheduleStatus } from './workflow/schedule.ts'
export type { StartOptions, Workflow } from './workflow/workflow.ts'
export type { SignalOptions, WorkflowExecution } from './workflow/workflow-execution.ts'
