/** Cancels executions, sends them signals, reads their status and waits for their outcome, in whatever process they run. */

import { randomUUID } from 'node:crypto'
import { LAST_ERROR_PURPOSE } from '../engine/attempt.ts'
import { decryptOutcome } from '../engine/outcome-encryption.ts'
import { withTimeout } from '../engine/retry/with-timeout.ts'
import { decodeValue, encodeValue } from '../engine/values/value-codec.ts'
import { CancelledError, PawlError } from '../errors/index.ts'
import { WORK_DUE, type Outcome } from '../store/execution-store.ts'
import type { Description } from '../store/workflow-store.ts'
import { checkSize } from './workflow-outcome.ts'
import type { WorkflowDependencies } from './dependencies.ts'

/** What the control needs; no worker, so a process that runs no workflows can control them too. */
type ControlDependencies = Pick<WorkflowDependencies, 'store' | 'workflows' | 'changeListener' | 'encryptor' | 'limits'> & {
  engine: Pick<WorkflowDependencies['engine'], 'activeAttempt'>
}

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

  /** How an execution ended; null if it has not within that time. @throws PawlError */
  async waitForOutcome(id: string, timeoutMs: number): Promise<Outcome | null> {
    const { engine, store, changeListener, encryptor, workflows } = this.#dependencies()
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const left = Math.min(deadline - performance.now(), 2 ** 31 - 1)
      const attempt = engine.activeAttempt(id)
      if (!attempt) break
      const settled = await withTimeout(left, attempt.settled)
      if (!settled) return null
      if (settled.kind === 'done') return settled.outcome
      if (engine.activeAttempt(id) === attempt) break
    }
    await store.markAwaited(id)
    const look = async (): Promise<Outcome | null> => {
      const found = await store.read(id)
      if (!found) throw executionMissing(id)
      if (found.outcome) return decryptOutcome(encryptor, id, found.outcome)
      if (found.status !== 'parked') return null
      const { name, lastError } = (await workflows.describe(id)) ?? {}
      const error = lastError ? decodeValue(encryptor.decrypt(lastError, id, LAST_ERROR_PURPOSE)) : undefined
      throw new PawlError(
        'execution-parked',
        `Workflow "${name}" (${id}) is parked: it has used up its attempts, or no further attempt can succeed.`,
        'Find the cause with pawl show, correct it, and resume the workflow with pawl release.',
        error,
      )
    }
    return changeListener.waitFor(id, look, Math.max(deadline - performance.now(), 1))
  }

  /**
   * Reads an execution's current state, with its outcome and last error decrypted.
   * @throws PawlError `execution-missing`, `decryption-failed`
   */
  async describe(id: string): Promise<Description> {
    const { workflows, encryptor } = this.#dependencies()
    const found = UUID.test(id) ? await workflows.describe(id) : null
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
    const ids = await workflows.cancel(id)
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
    const sent = UUID.test(id) && (await workflows.sendSignal(id, name, sender, encrypted))
    if (!sent) throw executionMissing(id)
    store.notify([id, WORK_DUE])
    this.#pollNow()
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
