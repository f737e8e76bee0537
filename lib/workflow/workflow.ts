import type { TransactionHost } from '../store/database/transaction-host.ts'
import type { Definition, WorkflowCode, WorkflowOptions } from './definition.ts'
import { WorkflowHandle } from './handle.ts'
import { idOf } from './starter.ts'
import type { Workflows } from './workflows.ts'

export type { TransactionHost, WorkflowCode, WorkflowOptions }

/** Options of a start. */
export interface StartOptions {
  /**
   * Names it within the workflow: a second start with the same key is the first one's handle. Default: a
   * new one; inside an execution one that is the same in every attempt.
   */
  key?: string
  /** When it begins. Default: now. */
  delay?: number | string
  /** From 0 to 9: of several that could begin, the highest is first. Default 0. */
  priority?: number
  /** The key whose limits it runs under, in queues with `concurrencyPerKey`. */
  queueKey?: string
  /**
   * A transaction of the app's (a `pg` client, or what `transaction(name, fn)` hands out, also of an ORM):
   * the workflow is started when that commits, and not at all if it does not. Default: that of a request
   * with `transaction: true`; else none.
   */
  tx?: unknown
}

/** A workflow, from `pawl.workflow(name, options, fn)`. */
export class Workflow<Input = unknown, Output = unknown> {
  readonly name: string
  readonly #definition: Definition
  readonly #runtime: Workflows

  /** @internal */
  constructor(runtime: Workflows, definition: Definition) {
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
