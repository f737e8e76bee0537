/** Cancels, signals, describes and awaits executions, whichever process runs them. */

import { randomUUID } from 'node:crypto'
import { LAST_ERROR_PURPOSE } from '../engine/attempt.ts'
import { waitForExecution } from '../engine/execution-snapshot.ts'
import { decryptOutcome } from '../engine/outcome-encryption.ts'
import { retryWhileUnavailableFor } from '../engine/retry/retry-while-unavailable.ts'
import { withTimeout } from '../engine/retry/with-timeout.ts'
import { decodeValue, encodeValue } from '../engine/values/value-codec.ts'
import { CancelledError, PawlError } from '../errors/index.ts'
import type { ExecutionDetails } from '../store/execution-reader.ts'
import { type Outcome, WORK_DUE } from '../store/execution-store.ts'
import type { WorkflowDependencies } from './dependencies.ts'
import { checkSize } from './workflow-outcome.ts'

/** What the control needs; no worker, so a process that runs no workflows can control them too. */
type ControlDependencies = Pick<
  WorkflowDependencies,
  'store' | 'reader' | 'workflows' | 'changeListener' | 'encryptor' | 'limits' | 'storeTimeoutMs'
> & {
  engine: Pick<WorkflowDependencies['engine'], 'activeAttempt'>
}

/** The longest delay that setTimeout supports, in ms. */
const MAX_TIMER_MS = 2 ** 31 - 1

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** Controls started executions, whichever process runs them. */
export class ExecutionControl {
  readonly #dependencies: () => ControlDependencies
  readonly #pollNow: () => void

  /** @param pollNow makes the worker of this process look for work at once */
  constructor(dependencies: () => ControlDependencies, pollNow: () => void) {
    this.#dependencies = dependencies
    this.#pollNow = pollNow
  }

  /**
   * Waits until an execution has ended; null: it has not within that time.
   * @throws PawlError `execution-missing`, `execution-parked`, `store-unavailable`, `decryption-failed`
   */
  async waitForOutcome(id: string, timeoutMs: number): Promise<Outcome | null> {
    const dependencies = this.#dependencies()
    const { engine } = dependencies
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const left = Math.min(deadline - performance.now(), MAX_TIMER_MS)
      const attempt = engine.activeAttempt(id)
      if (!attempt) break
      const settled = await withTimeout(left, attempt.settled)
      if (!settled) return null
      if (settled.kind === 'done') return settled.outcome
      if (engine.activeAttempt(id) === attempt) break
    }
    const snapshot = await waitForExecution(
      dependencies,
      { id },
      ({ status, outcome }) => outcome !== null || status === 'parked',
      deadline - performance.now(),
    )
    if (!snapshot) throw executionMissing(id)
    if (snapshot.status === 'parked') throw await this.#executionParked(id)
    return snapshot.outcome
  }

  /** The error for an execution that is parked, with its last error as the cause. */
  async #executionParked(id: string): Promise<PawlError> {
    const { reader, encryptor } = this.#dependencies()
    const found = await this.#untilAvailable(() => reader.describeInFull(id))
    const { name, lastError } = found ?? {}
    const error = lastError
      ? decodeValue(encryptor.decrypt(lastError, id, LAST_ERROR_PURPOSE))
      : undefined
    return new PawlError(
      'execution-parked',
      `Workflow "${name}" (${id}) is parked: it has used up its attempts, or no further attempt can succeed.`,
      'Find the cause with pawl show, correct it, and resume the workflow with pawl release.',
      error,
    )
  }

  /**
   * Reads an execution's current state, with its outcome and last error decrypted.
   * @throws PawlError `execution-missing`, `decryption-failed`
   */
  async describe(id: string): Promise<ExecutionDetails> {
    const { reader, encryptor } = this.#dependencies()
    const found = UUID.test(id) ? await this.#untilAvailable(() => reader.describeInFull(id)) : null
    if (!found) throw executionMissing(id)
    const { outcome, lastError } = found
    return {
      ...found,
      outcome: outcome && decryptOutcome(encryptor, id, outcome),
      lastError: lastError && encryptor.decrypt(lastError, id, LAST_ERROR_PURPOSE),
    }
  }

  /**
   * Cancels an execution and those that it has started.
   * @returns the ids of the executions that were asked to end
   * @throws PawlError `execution-missing` if the id is not a UUID
   */
  async cancel(id: string): Promise<string[]> {
    const { workflows, engine, store } = this.#dependencies()
    if (!UUID.test(id)) throw executionMissing(id)
    const ids = await this.#untilAvailable(() => workflows.cancel(id))
    for (const id of ids) engine.activeAttempt(id)?.halt(new CancelledError())
    store.notify([...ids, WORK_DUE])
    this.#pollNow()
    return ids
  }

  /**
   * Sends a signal to an execution that has not ended.
   * @throws PawlError `execution-missing`, `invalid-option`, `value-unkeepable`, `limit-exceeded`
   */
  async signal(id: string, name: string, value: unknown, options?: { id?: string }): Promise<void> {
    const { workflows, encryptor, store, limits } = this.#dependencies()
    if (typeof name !== 'string' || name === '' || name.length > 255) {
      throw new PawlError(
        'invalid-option',
        'signal() was given no name.',
        'Call pawl.signal(id, name, value).',
      )
    }
    const bytes = encodeValue(value)
    checkSize(bytes, limits.input, `Signal "${name}"`)
    const encrypted = bytes && encryptor.encrypt(bytes, id, `signal ${name}`)
    const sender = options?.id ?? randomUUID()
    // Sending it twice is safe: the sender's id identifies the signal.
    const send = () => workflows.sendSignal(id, name, sender, encrypted)
    const sent = UUID.test(id) && (await this.#untilAvailable(send))
    if (!sent) throw executionMissing(id)
    store.notify([id, WORK_DUE])
    this.#pollNow()
  }

  /** Repeats an operation while the database is unavailable, for at most `storeTimeout`. */
  #untilAvailable<T>(operation: () => Promise<T>): Promise<T> {
    return retryWhileUnavailableFor(this.#dependencies().storeTimeoutMs, operation)
  }
}

/** The error for an id that belongs to no execution, or to one that has ended. */
export function executionMissing(id: string): PawlError {
  return new PawlError(
    'execution-missing',
    `Execution "${id}" does not exist, or it has ended.`,
    'Pass handle.id; pawl list shows the executions that exist.',
  )
}
