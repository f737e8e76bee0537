import { define, defineQueue } from './define.ts'
import type { WorkflowOptions } from './definition.ts'
import { statusOf, type WorkflowStatus } from './workflow-handle.ts'
import {
  defineObject,
  type Handlers,
  type KeyedObject,
  type ObjectOptions,
  type ReadableObjectOptions,
  type Readers,
} from './object/keyed-object.ts'
import type { Queue, QueueOptions } from './queue/queue.ts'
import type { ScheduleOptions, ScheduleStatus } from './schedule/schedule.ts'
import { Workflow } from './workflow.ts'
import type { WorkflowCode } from './workflow-execution.ts'
import { Workflows } from './workflow-service.ts'

/** What Pawl has to do with executions that outlive a request. */
export class WorkflowApi {
  /** @internal */
  protected readonly workflows = new Workflows()

  /**
   * Defines a workflow: code that goes on by itself until it has a result, whatever happens to the
   * processes it runs in. Call it before or after `start()`, in every process that shall run it.
   *
   * ```ts
   * const fulfil = pawl.workflow('fulfil order', async (execution, { orderId }: Order) => {
   *   await execution.step('reserve stock', () => warehouse.reserve(orderId))
   *   const approved = await execution.signal('approved', { timeout: '3 days' })
   *   …
   * })
   * await fulfil.start({ orderId }, { key: orderId })
   * ```
   *
   * @throws PawlError `invalid-option`
   */
  workflow<Input = unknown, Output = unknown>(
    name: string,
    code: WorkflowCode<Input, Output>,
  ): Workflow<Input, Output>
  workflow<Input = unknown, Output = unknown>(
    name: string,
    options: WorkflowOptions<Input, Output>,
    code: WorkflowCode<Input, Output>,
  ): Workflow<Input, Output>
  workflow<Input, Output>(
    name: string,
    ...rest:
      | [WorkflowCode<Input, Output>]
      | [WorkflowOptions<Input, Output>, WorkflowCode<Input, Output>]
  ): Workflow<Input, Output> {
    const [options, code] = rest.length === 1 ? [undefined, rest[0]] : rest
    const definition = define('workflow', name, options, code)
    this.workflows.define(definition)
    return new Workflow(this.workflows, definition)
  }

  /**
   * Defines an object: handlers, and what they keep for each key. Those of one key run one at a time, in
   * the order of the calls; each call is as durable as a workflow. Call it in every process that shall run
   * them: `await pawl.object('cart', { handlers: { add } }).of(userId).add(item)`.
   * @throws PawlError `invalid-option`
   */
  object<H extends Handlers, R extends Readers>(
    name: string,
    options: ReadableObjectOptions<H, R>,
  ): KeyedObject<H & R>
  object<H extends Handlers>(name: string, options: ObjectOptions<H>): KeyedObject<H>
  object(name: string, options: object): unknown {
    return defineObject(this.workflows, name, options)
  }

  /**
   * Defines a queue: workflows with `queue` run under its limits, over all processes.
   * @throws PawlError `invalid-option`
   */
  queue(name: string, options?: QueueOptions): Queue {
    return defineQueue(name, options, () => this.workflows.parts.queues)
  }

  /**
   * Starts a workflow at the times of a cron expression: each tick starts it once, over all processes, under
   * the key `<name> <tick in ISO 8601>`. Call it in every process that shall run it.
   *
   * ```ts
   * pawl.schedule('report', { cron: '0 9 * * mon-fri', timezone: 'Europe/Berlin' }, sendReport)
   * ```
   *
   * @throws PawlError `invalid-option`, also for an expression or a time zone that is none
   */
  schedule<Input>(
    name: string,
    options: ScheduleOptions<Input>,
    workflow: Workflow<Input, unknown>,
  ): void {
    this.workflows.schedules.add(name, options, workflow)
  }

  /** The schedules of this process, and when each comes next. @throws PawlError `store-unavailable` */
  async schedules(): Promise<ScheduleStatus[]> {
    return this.workflows.schedules.list()
  }

  /**
   * Sends a signal to a workflow: `execution.signal(name)` there resolves to the value.
   * @param id the execution's: `handle.id`
   * @param value default `true`
   * @param options.id the sender's id of this signal: sent twice, it arrives once. Default: a new one
   * @throws PawlError `execution-missing` if it has ended, `value-unkeepable`, `store-unavailable`
   */
  async signal(
    id: string,
    name: string,
    value: unknown = true,
    options?: { id?: string },
  ): Promise<void> {
    await this.workflows.control.signal(id, name, value, options)
  }

  /** Asks an execution to end, and what it has started; see `handle.cancel()`. */
  async cancel(id: string): Promise<void> {
    await this.workflows.control.cancel(id)
  }

  /** How a workflow stands. @throws PawlError `execution-missing` */
  async status(id: string): Promise<WorkflowStatus> {
    return statusOf(this.workflows.control, id)
  }
}
