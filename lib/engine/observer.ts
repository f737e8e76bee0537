/** Reads executions, and waits until they reach a given state, without running them. */

import type { ChangeListener } from '../store/change-listener.ts'
import type { Description } from '../store/execution-identity.ts'
import type { ExecutionStore, Outcome, StoredExecution } from '../store/execution-store.ts'
import { decryptOutcome } from './outcome-encryption.ts'
import type { Encryptor } from './values/encryptor.ts'

export type { Description } from '../store/execution-identity.ts'

/** The state of an execution at one moment. */
export interface ExecutionSnapshot {
  /** The status column; `interrupted` if it is `running` and the owner is dead. */
  status: string
  attempt: number
  /** Null until the execution has ended. */
  outcome: Outcome | null
}

export interface ObserverDependencies {
  store: ExecutionStore
  watch: ChangeListener
  encryptor: Encryptor
  describe: (id: string) => Promise<Description | null>
}

/** Reads executions and waits for them, without running them. */
export class Observer {
  readonly #dependencies: ObserverDependencies
  readonly #waiting = new Set<AbortController>()
  #stopped = false

  constructor(dependencies: ObserverDependencies) {
    this.#dependencies = dependencies
  }

  /** @throws PawlError `store-unavailable`, `store-refused` */
  describe(id: string): Promise<Description | null> {
    return this.#dependencies.describe(id)
  }

  /**
   * Reads the state of an execution; null if it is deleted or expired.
   * @throws PawlError `store-unavailable`, `store-refused`, `decryption-failed`
   */
  async readExecution({ id, incarnation }: Description): Promise<ExecutionSnapshot | null> {
    const found = await this.#dependencies.store.read(id)
    // After the key expired, there may be a new execution under it.
    if (found?.incarnation !== incarnation || found.expired) return null
    return this.#snapshotOf(id, found)
  }

  /**
   * Waits until `isWanted` returns true for the execution's state, the timeout has passed, the signal fires,
   * or this process stops.
   * @returns the last state that was read; null if the execution is deleted or expired
   * @throws as `readExecution` does
   */
  async until(
    description: Description,
    isWanted: (snapshot: ExecutionSnapshot) => boolean,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<ExecutionSnapshot | null> {
    const { store, watch } = this.#dependencies
    const { id } = description
    let snapshot = await this.readExecution(description)
    if (!snapshot || isWanted(snapshot) || timeoutMs <= 0 || this.#stopped || signal.aborted)
      return snapshot
    await store.markAwaited(id)
    const controller = new AbortController()
    const stop = () => controller.abort()
    signal.addEventListener('abort', stop)
    this.#waiting.add(controller)
    if (signal.aborted || this.#stopped) stop()
    const read = async (): Promise<true | null> => {
      snapshot = await this.readExecution(description)
      return !snapshot || isWanted(snapshot) ? true : null
    }
    try {
      await watch.waitFor(id, read, timeoutMs, controller.signal)
      return snapshot
    } catch (error) {
      if (this.#stopped) return snapshot // The store is closed and cannot be read any more.
      throw error
    } finally {
      signal.removeEventListener('abort', stop)
      this.#waiting.delete(controller)
    }
  }

  /** Ends all waits; later waits return at once. */
  stop(): void {
    this.#stopped = true
    for (const controller of this.#waiting) controller.abort()
  }

  /** Whether the observer has stopped, so that waits return at once. */
  get isStopped(): boolean {
    return this.#stopped
  }

  #snapshotOf(
    id: string,
    { status, ownerAlive, attempt, outcome }: StoredExecution,
  ): ExecutionSnapshot {
    return {
      status: status === 'running' && !ownerAlive ? 'interrupted' : status,
      attempt,
      outcome: outcome && decryptOutcome(this.#dependencies.encryptor, id, outcome),
    }
  }
}
