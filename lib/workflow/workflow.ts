import type { Control } from './execution-control.ts'
import type { Definition } from './definition.ts'
import { WorkflowHandle } from './workflow-handle.ts'
import type { StartOptions } from './start-options.ts'
import { idOf, type Starter } from './workflow-starter.ts'

/** What a workflow needs of the Pawl that defined it. */
export interface WorkflowRuntime {
  readonly starter: Starter
  readonly control: Control
}

/** A workflow, from `pawl.workflow(name, options, fn)`. */
export class Workflow<Input = unknown, Output = unknown> {
  readonly name: string
  readonly #definition: Definition
  readonly #runtime: WorkflowRuntime

  /** @internal */
  constructor(runtime: WorkflowRuntime, definition: Definition) {
    this.#runtime = runtime
    this.#definition = definition
    this.name = definition.name
  }

  /**
   * Starts it, and returns at once. Inside a request or another workflow the start is journaled itself: it
   * happens once, however often that runs.
   * @throws PawlError `input-invalid`, `key-reused` if another input was started under this key,
   * `limit-exceeded`, `invalid-option`, `value-unkeepable`, `not-started`, `store-unavailable`
   */
  async start(input: Input, options?: StartOptions): Promise<WorkflowHandle<Output>> {
    return this.handle(await this.#runtime.starter.start(this.#definition, input, options))
  }

  /** Starts many, in as few statements as can be. Either all of them are valid, or none is started. */
  async startMany(
    starts: readonly { input: Input; options?: StartOptions }[],
  ): Promise<WorkflowHandle<Output>[]> {
    const keys = await this.#runtime.starter.startMany(this.#definition, starts)
    return keys.map((key) => this.handle(key))
  }

  /** The handle of one that was started, by its key. */
  handle(key: string): WorkflowHandle<Output> {
    const { kind, name } = this.#definition
    return new WorkflowHandle(this.#runtime.control, idOf(kind, name, key), key, name)
  }
}
