import { currentExecution, currentStep } from '../engine/current-execution.ts'
import { decodeValue } from '../engine/values/value-codec.ts'
import { PawlError } from '../errors/index.ts'
import { type Duration, parseOptions } from '../options/parse-options.ts'
import type { ExecutionKind } from '../store/execution-store.ts'
import type { Control } from './execution-control.ts'
import { resultOptions } from './option-schemas.ts'
import { endedOf, resultOf } from './workflow-outcome.ts'

/** How a workflow stands. */
export interface WorkflowStatus {
  id: string
  kind: ExecutionKind
  /** The workflow's name. */
  name: string
  version: string | null
  key: string
  /**
   * `waiting`: it begins or goes on later, by itself. `released`: it failed, and is tried again.
   * `interrupted`: its process died, and another goes on with it. `parked`: it failed as often as it may.
   */
  status:
    | 'running'
    | 'waiting'
    | 'released'
    | 'interrupted'
    | 'parked'
    | 'done'
    | 'failed'
    | 'cancelled'
  /** Whether it was asked to end and has not yet. */
  cancelling: boolean
  /** The number of times its code was run, also after sleeping. */
  attempt: number
  /** Of a workflow that is done. */
  result?: unknown
  /** What it ended with, or why its last attempt failed. */
  error?: Error
  createdAt: Date
  completedAt: Date | null
}

/** An execution in which waiting for another one's result is durable, and the result is journaled. */
interface DurableWaiter {
  resultOf(id: string, name: string): Promise<unknown>
}

function awaitsDurably<T extends object>(execution: T): execution is T & DurableWaiter {
  return 'resultOf' in execution
}

/** A workflow that was started. It can be had again at any time, in any process: `workflow.handle(key)`. */
export class WorkflowHandle<Output = unknown> {
  /** The execution's id, a UUID: what `pawl.signal`, `pawl list` and the SQL views call it. */
  readonly id: string
  /** Its key within the workflow. */
  readonly key: string
  readonly #name: string
  readonly #control: Control
  readonly #beforeWaiting: () => void

  /** @internal */
  constructor(
    control: Control,
    id: string,
    key: string,
    name: string,
    beforeWaiting: () => void = () => {},
  ) {
    this.#beforeWaiting = beforeWaiting
    this.#control = control
    this.id = id
    this.key = key
    this.#name = name
  }

  /**
   * Waits for its result. Inside a workflow the waiting is durable, and the result is journaled.
   * @param options.timeout how long to wait. Default: for as long as it takes
   * @throws WorkflowFailedError, CancelledError: what it ended with; PawlError `result-timed-out`,
   * `execution-parked`, `execution-missing`, `object-deadlock`, `store-unavailable`
   */
  async result(options?: { timeout?: Duration }): Promise<Output> {
    const { timeout } = parseOptions(resultOptions, options, 'result()')
    this.#beforeWaiting()
    const current = currentExecution()
    if (current && awaitsDurably(current) && !currentStep(current) && timeout === undefined) {
      return (await current.resultOf(this.id, this.#name)) as Output
    }
    const outcome = await this.#control.untilEnd(this.id, timeout ?? Number.POSITIVE_INFINITY)
    if (outcome) return resultOf(this.#name, outcome) as Output
    throw new PawlError(
      'result-timed-out',
      `Workflow "${this.#name}" had no result within ${timeout} ms.`,
      'It goes on; ask again later.',
    )
  }

  /** @throws PawlError `execution-missing`, `store-unavailable`, `decryption-failed` */
  async status(): Promise<WorkflowStatus> {
    return statusOf(this.#control, this.id)
  }

  /**
   * Asks it to end, and what it has started: whatever it begins next throws a CancelledError, what it did is
   * undone, and it ends as cancelled. One that has ended stays as it is.
   */
  async cancel(): Promise<void> {
    await this.#control.cancel(this.id)
  }

  /**
   * Sends it a signal, as `pawl.signal(id, name, value)` does.
   * @throws PawlError `execution-missing` if it has ended
   */
  async signal(name: string, value: unknown = true, options?: { id?: string }): Promise<void> {
    await this.#control.signal(this.id, name, value, options)
  }
}

/** @throws PawlError `execution-missing`, `store-unavailable`, `decryption-failed` */
export async function statusOf(control: Control, id: string): Promise<WorkflowStatus> {
  const found = await control.describe(id)
  const { kind, name, version, key, attempt, cancelling, createdAt, completedAt } = found
  const ended = found.outcome && endedOf(found.outcome)
  const error = ended && 'error' in ended ? ended.error : decodeValue(found.lastError)
  return {
    id,
    kind,
    name,
    version,
    key,
    status: (ended ? ended.status : found.status) as WorkflowStatus['status'],
    cancelling,
    attempt,
    ...(ended?.status === 'done' && { result: ended.result }),
    ...(error instanceof Error && { error }),
    createdAt: dateOf(createdAt),
    completedAt: completedAt === null ? null : dateOf(completedAt),
  }
}

function dateOf(micros: string): Date {
  return new Date(Number(BigInt(micros) / 1000n))
}
