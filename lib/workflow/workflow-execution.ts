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
   * Ends this life of the execution and begins a new one with another input, under the same id and key: the journal
   * begins anew, so that a loop that never ends stays small. In one commit, so that nothing is lost in between.
   * Signals that were not received yet, handles, children, the place in a queue and whoever waits for the result
   * stay; the `timeout` and the attempts begin anew, and compensations of the former life never run.
   *
   * ```ts
   * pawl.workflow('poller', async (execution, { cursor }: { cursor: string }) => {
   *   const next = await execution.step('poll', () => poll(cursor))
   *   await execution.sleep('1 minute')
   *   return execution.continueAs({ cursor: next })
   * })
   * ```
   *
   * Return it, or await it; it never resolves.
   * @throws PawlError `input-invalid`, `limit-exceeded`, `value-unkeepable`, `step-nested`
   */
  continueAs(input: unknown): Promise<never>

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
