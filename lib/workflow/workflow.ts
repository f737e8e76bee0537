/** A workflow that the app has defined: starts its executions and returns their handles. */

import type { WorkflowDefinition } from './definition.ts'
import type { ExecutionControl } from './execution-control.ts'
import type { StartOptions } from './start-options.ts'
import { WorkflowHandle } from './workflow-handle.ts'
import { type WorkflowStarter, workflowExecutionId } from './workflow-starter.ts'

/** What a workflow uses of the Pawl instance that defined it. */
export interface WorkflowRuntime {
  readonly starter: WorkflowStarter
  readonly control: ExecutionControl
}

/** A workflow, as `pawl.workflow(name, options, fn)` returns it. */
export class Workflow<Input = unknown, Output = unknown> {
  readonly name: string
  readonly #definition: WorkflowDefinition
  readonly #runtime: WorkflowRuntime

  /** @internal */
  constructor(runtime: WorkflowRuntime, definition: WorkflowDefinition) {
    this.#runtime = runtime
    this.#definition = definition
    this.name = definition.name
  }

  /**
   * Starts an execution of the workflow and returns its handle without waiting for the result. Inside a
   * request or another workflow the start is recorded in that execution's journal, so that it happens once
   * however often the code runs.
   * @throws PawlError `input-invalid`, `key-reused` if the key was used with another input,
   * `limit-exceeded`, `invalid-option`, `value-unkeepable`, `not-started`, `store-unavailable`
   */
  async start(input: Input, options?: StartOptions): Promise<WorkflowHandle<Output>> {
    return this.handle(await this.#runtime.starter.start(this.#definition, input, options))
  }

  /**
   * Starts many executions in as few SQL statements as possible. If one of the inputs or options is invalid,
   * none is started.
   * @throws PawlError as {@link start}
   */
  async startMany(
    starts: readonly { input: Input; options?: StartOptions }[],
  ): Promise<WorkflowHandle<Output>[]> {
    const keys = await this.#runtime.starter.startMany(this.#definition, starts)
    return keys.map((key) => this.handle(key))
  }

  /** Returns the handle of the execution that was started with this key. */
  handle(key: string): WorkflowHandle<Output> {
    const { kind, name } = this.#definition
    return new WorkflowHandle(
      this.#runtime.control,
      workflowExecutionId(kind, name, key),
      key,
      name,
    )
  }
}
