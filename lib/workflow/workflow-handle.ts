/** The handle of a started workflow: waits for its result, reads its status, cancels it and sends it signals. */

import { currentExecution, currentStep } from '../engine/current-execution.ts'
import { decodeValue } from '../engine/values/value-codec.ts'
import { PawlError } from '../errors/index.ts'
import { type Duration, parseOptions } from '../options/parse-options.ts'
import type { ExecutionKind } from '../store/execution-store.ts'
import type { ExecutionControl } from './execution-control.ts'
import { resultOptions } from './option-schemas.ts'
import { decodeOutcome, unwrapOutcome } from './workflow-outcome.ts'

/** The state of a workflow, as `handle.status()` and `pawl.status(id)` return it. */
export interface WorkflowStatus {
  id: string
  kind: ExecutionKind
  /** The workflow's name. */
  name: string
  version: string | null
  key: string
  /**
   * `waiting`: it starts or continues later, by itself. `released`: its last attempt failed, and it will be
   * retried. `interrupted`: its process died, and another process will continue it. `parked`: it has used up
   * its attempts, or no further attempt can succeed until something is changed.
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
  /** Whether it was cancelled and has not ended yet. */
  cancelling: boolean
  /** How many times its code has been run; a run after a sleep counts too. */
  attempt: number
  /** Its return value. Only if `status` is `done`. */
  result?: unknown
  /** The error that it ended with; of an unfinished workflow the error of its last failed attempt. */
  error?: Error
  createdAt: Date
  completedAt: Date | null
}

/** An execution that waits durably for the result of another one, and records the result in its journal. */
interface DurableWaiter {
  awaitResult(id: string, name: string): Promise<unknown>
}

function canWaitDurably<T extends object>(execution: T): execution is T & DurableWaiter {
  return 'awaitResult' in execution
}

/** The handle of a started workflow. Any process can create it again, at any time: `workflow.handle(key)`. */
export class WorkflowHandle<Output = unknown> {
  /** The execution's id, a UUID, for `pawl.signal`, the `pawl` command and the SQL views. */
  readonly id: string
  /** The key that identifies the execution within its workflow. */
  readonly key: string
  readonly #name: string
  readonly #control: ExecutionControl
  readonly #beforeWaiting: () => void

  /** @internal */
  constructor(
    control: ExecutionControl,
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
   * Waits for the workflow to end and returns its result. Inside another workflow the wait is durable (it
   * survives restarts), and the result is recorded in that workflow's journal.
   * @param options.timeout how long to wait. Default: without limit
   * @throws WorkflowFailedError, CancelledError if it ended that way; PawlError `result-timed-out`,
   * `execution-parked`, `execution-missing`, `object-deadlock`, `store-unavailable`
   */
  async result(options?: { timeout?: Duration }): Promise<Output> {
    const { timeout } = parseOptions(resultOptions, options, 'result()')
    this.#beforeWaiting()
    const current = currentExecution()
    if (current && canWaitDurably(current) && !currentStep(current) && timeout === undefined) {
      return (await current.awaitResult(this.id, this.#name)) as Output
    }
    const outcome = await this.#control.waitForOutcome(this.id, timeout ?? Number.POSITIVE_INFINITY)
    if (outcome) return unwrapOutcome(this.#name, outcome) as Output
    throw new PawlError(
      'result-timed-out',
      `Workflow "${this.#name}" had no result within ${timeout} ms.`,
      'It is still running; call result() again later.',
    )
  }

  /**
   * Reads the current state of the workflow.
   * @throws PawlError `execution-missing`, `store-unavailable`, `decryption-failed`
   */
  async status(): Promise<WorkflowStatus> {
    return readStatus(this.#control, this.id)
  }

  /**
   * Cancels the workflow, and the workflows that it has started. The next step or wait that it begins throws a
   * CancelledError, its compensations run, and it ends as `cancelled`. An ended workflow stays as it is.
   */
  async cancel(): Promise<void> {
    await this.#control.cancel(this.id)
  }

  /**
   * Sends the workflow a signal, as `pawl.signal(id, name, value)` does.
   * @throws PawlError `execution-missing` if it has ended
   */
  async signal(name: string, value: unknown = true, options?: { id?: string }): Promise<void> {
    await this.#control.signal(this.id, name, value, options)
  }
}

/**
 * Reads the current state of a workflow.
 * @throws PawlError `execution-missing`, `store-unavailable`, `decryption-failed`
 */
export async function readStatus(control: ExecutionControl, id: string): Promise<WorkflowStatus> {
  const found = await control.describe(id)
  const { kind, name, version, key, attempt, cancelling, createdAt, completedAt } = found
  const ended = found.outcome && decodeOutcome(found.outcome)
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
    createdAt,
    completedAt,
  }
}
