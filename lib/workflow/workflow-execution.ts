/** The interface through which a workflow's code sleeps, waits for signals, starts workflows and runs steps. */

import type { z } from 'zod'
import type { Execution } from '../engine/execution.ts'
import type { Duration } from '../options/parse-options.ts'
import type { StartOptions } from './start-options.ts'
import type { Workflow } from './workflow.ts'
import type { WorkflowHandle } from './workflow-handle.ts'

/** Options of {@link WorkflowExecution.signal}. */
export interface SignalOptions<T> {
  /** How long to wait; after that the result is undefined. Default: without limit. */
  timeout?: Duration
  /**
   * A zod schema that validates the value. A signal that does not match it is left unread, and a warning is
   * logged. Default: any value is accepted.
   */
  schema?: z.ZodType<T>
}

/** The execution object that a workflow's code receives as its first argument. */
export interface WorkflowExecution extends Execution {
  /** The `version` option of the workflow; null if it has none. */
  readonly version: string | null

  /**
   * Waits for this long, also across restarts. A sleeping execution takes up a row in the database but no
   * memory: the code is abandoned here, and another attempt continues from this point.
   */
  sleep(duration: Duration): Promise<void>

  /** Waits until this time, as {@link sleep} does. */
  sleepUntil(date: Date): Promise<void>

  /**
   * Waits for a signal that `pawl.signal(id, name, value)` sends. A signal that arrives before the wait is
   * kept for it. Each signal is received once; signals of one name are received in the order of arrival.
   * @returns the value of the signal; undefined after the timeout
   */
  signal<T = unknown>(name: string, options?: SignalOptions<T>): Promise<T | undefined>

  /**
   * Starts another workflow, as `workflow.start(input, options)` does, once however often this code runs.
   * Cancelling this execution cancels the started one too.
   */
  start<Input, Output>(
    workflow: Workflow<Input, Output>,
    input: Input,
    options?: StartOptions,
  ): Promise<WorkflowHandle<Output>>

  /**
   * Tells whether this execution takes a change of the code: true for new executions and for those that had
   * not yet come this far when the code changed, false for those that were past it. Decided by the first call and
   * recorded: the answer is the same in every attempt, and in every round of a loop.
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
