/** The entry point of the package: `Pawl`, its errors, and the types of its interface. */

export { currentExecution } from './engine/current-execution.ts'
export type { Execution, RunStep, RunTransaction } from './engine/execution.ts'
export type { ExecutionName, ExecutionState } from './engine/execution-name.ts'
export { step, transaction } from './engine/standalone-functions.ts'
export type {
  RetryOptions,
  StepContext,
  StepOptions,
  TransactionOptions,
} from './engine/steps/step-options.ts'
export {
  CancelledError,
  DivergenceError,
  PawlError,
  type PawlErrorCode,
  StepInterruptedError,
  TerminalError,
  WorkflowFailedError,
  WorkflowTimeoutError,
} from './errors/index.ts'
export type { PawlLike } from './http/runtime.ts'
export type { Logger } from './options/logger.ts'
export type { ByteSize, Duration } from './options/parse-options.ts'
export { Pawl } from './pawl.ts'
export type { PawlOptions } from './pawl-options.ts'
export type { ObservedExecution, StatusOptions } from './status/endpoint.ts'
export type { StatusHandler } from './status/handlers.ts'
export type {
  IsolationLevel,
  RunStatement,
  TransactionHost,
} from './store/database/transaction-host.ts'
export type { WorkflowOptions } from './workflow/definition.ts'
export type {
  CallOptions,
  KeyedObject,
  ObjectOf,
  ObjectOptions,
  ReadableObjectOptions,
} from './workflow/object/keyed-object.ts'
export type { ObjectExecution, ReaderExecution } from './workflow/object/object-execution.ts'
export type { ObjectState, ReadonlyState } from './workflow/object/object-state.ts'
export type { Backlog, Queue, QueueOptions } from './workflow/queue/queue.ts'
export type { ScheduleOptions, ScheduleStatus } from './workflow/schedule/schedule.ts'
export type { StartOptions } from './workflow/start-options.ts'
export type { Workflow } from './workflow/workflow.ts'
export type {
  SignalOptions,
  WorkflowCode,
  WorkflowExecution,
} from './workflow/workflow-execution.ts'
export type { WorkflowHandle, WorkflowStatus } from './workflow/workflow-handle.ts'
