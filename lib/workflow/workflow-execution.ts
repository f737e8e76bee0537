import type { z } from 'zod'
import type { Execution } from '../engine/execution.ts'
import type { Duration } from '../options/parse-options.ts'
import type { WorkflowHandle } from './workflow-handle.ts'
import type { StartOptions } from './start-options.ts'
import type { Workflow } from './workflow.ts'

/** Options of {@link WorkflowExecution.signal}. */
export interface SignalOptions<T> {
  /** How long it waits: the signal is undefined then. Default: for as long as it takes. */
  timeout?: Duration
  /** A zod schema. A signal that it refuses is left unread, and the log says so. Default: any value. */
  schema?: z.ZodType<T>
}

/** What a workflow's code holds of its execution. */
export interface WorkflowExecution extends Execution {
  /** Of the code: the workflow's `version` option. */
  readonly version: string | null

  /**
   * Waits for this long, also over restarts. Waiting costs a row, and no memory: the code ends here and
   * another attempt goes on from here.
   */
  sleep(duration: Duration): Promise<void>

  /** Waits until then. */
  sleepUntil(date: Date): Promise<void>

  /**
   * Waits for a signal: what `pawl.signal(id, name, value)` sends. One that came before is kept. Each is
   * taken once; of several of one name the first is first.
   * @returns its value; undefined if its time was up first
   */
  signal<T = unknown>(name: string, options?: SignalOptions<T>): Promise<T | undefined>

  /**
   * Starts another workflow, as `workflow.start(input, options)` does: once, however often this code runs.
   * Cancelling this one cancels that one.
   */
  start<Input, Output>(
    workflow: Workflow<Input, Output>,
    input: Input,
    options?: StartOptions,
  ): Promise<WorkflowHandle<Output>>

  /**
   * Whether this execution has begun under code that has this change: true for new executions and
   * for those that have not come this far, false for those that are past it. The same in every attempt.
   *
   * ```ts
   * if (await execution.patched('check fraud first')) await execution.step('check fraud', checkFraud)
   * ```
   */
  patched(change: string): Promise<boolean>
}

/** The code of a workflow. */
export type WorkflowCode<Input, Output> = (
  execution: WorkflowExecution,
  input: Input,
) => Output | Promise<Output>
