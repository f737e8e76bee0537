/** The methods of Pawl that define workflows, objects, queues and schedules, and that control executions. */

import { createDefinition, defineQueue } from './define.ts'
import type { WorkflowOptions } from './definition.ts'
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
import { readStatus, type WorkflowStatus } from './workflow-handle.ts'
import { WorkflowService } from './workflow-service.ts'

/** The part of Pawl's interface that deals with workflows. */
export class WorkflowApi {
  /** @internal */
  protected readonly workflows = new WorkflowService()

  /**
   * Defines a workflow: code that is continued until it has a result, even if the process that runs it dies.
   * Call this before or after `start()`, in every process that is to run the workflow.
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
    const definition = createDefinition('workflow', name, options, code)
    this.workflows.register(definition)
    return new Workflow(this.workflows, definition)
  }

  /**
   * Defines an object: handlers, and state that they keep for each key. The handlers of one key run one at a
   * time, in the order of the calls; each call is as durable as a workflow. Call this in every process that
   * is to run the handlers.
   *
   * ```ts
   * await pawl.object('cart', { handlers: { add } }).of(userId).add(item)
   * ```
   *
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
   * Defines a queue. Workflows with this `queue` option share its limits, across all processes.
   * @throws PawlError `invalid-option`
   */
  queue(name: string, options?: QueueOptions): Queue {
    return defineQueue(name, options, () => this.workflows.dependencies.queues)
  }

  /**
   * Starts a workflow at the times of a cron expression. Each tick starts it once across all processes, with
   * the key `<name> <tick in ISO 8601>`. Call this in every process that is to run the schedule.
   *
   * ```ts
   * pawl.schedule('report', { cron: '0 9 * * mon-fri', timezone: 'Europe/Berlin' }, sendReport)
   * ```
   *
   * @throws PawlError `invalid-option`, also for an invalid cron expression or time zone
   */
  schedule<Input>(
    name: string,
    options: ScheduleOptions<Input>,
    workflow: Workflow<Input, unknown>,
  ): void {
    this.workflows.scheduler.add(name, options, workflow)
  }

  /** Lists the schedules of this process with their next ticks. @throws PawlError `store-unavailable` */
  async schedules(): Promise<ScheduleStatus[]> {
    return this.workflows.scheduler.list()
  }

  /**
   * Sends a signal to a workflow, in which `execution.signal(name)` then resolves to the value.
   * @param id the id of the execution: `handle.id`
   * @param value default `true`
   * @param options.id the sender's id of this signal; a signal that is sent twice under one id arrives once.
   * Default: a new id
   * @throws PawlError `execution-missing` if the workflow has ended, `value-unkeepable`, `store-unavailable`
   */
  async signal(
    id: string,
    name: string,
    value: unknown = true,
    options?: { id?: string },
  ): Promise<void> {
    await this.workflows.control.signal(id, name, value, options)
  }

  /** Cancels an execution, and the executions that it has started; see `handle.cancel()`. */
  async cancel(id: string): Promise<void> {
    await this.workflows.control.cancel(id)
  }

  /** Reads the current state of a workflow. @throws PawlError `execution-missing` */
  async status(id: string): Promise<WorkflowStatus> {
    return readStatus(this.workflows.control, id)
  }
}
