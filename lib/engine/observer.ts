/** Serves the status endpoint: describes executions, and waits for their state until the process stops. */

import type { ExecutionDescription, ExecutionReader } from '../store/execution-reader.ts'
import {
  type ExecutionSnapshot,
  type SnapshotDependencies,
  waitForExecution,
} from './execution-snapshot.ts'

import { retryWhileUnavailableFor } from './retry/retry-while-unavailable.ts'

export type { ExecutionDescription } from '../store/execution-reader.ts'
export type { ExecutionSnapshot } from './execution-snapshot.ts'

export interface ObserverDependencies extends Omit<SnapshotDependencies, 'isStopped'> {
  reader: Pick<ExecutionReader, 'describe'>
}

/** Reads executions and waits for them, without running them. */
export class Observer {
  readonly #dependencies: ObserverDependencies & SnapshotDependencies
  readonly #waiting = new Set<AbortController>()
  #stopped = false

  constructor(dependencies: ObserverDependencies) {
    this.#dependencies = { ...dependencies, isStopped: () => this.#stopped }
  }

  /**
   * Describes an execution without its state; null: it does not exist, or has expired.
   * @throws PawlError `store-unavailable`, `store-refused`
   */
  describe(id: string): Promise<ExecutionDescription | null> {
    const { reader, storeTimeoutMs, isStopped } = this.#dependencies
    return retryWhileUnavailableFor(storeTimeoutMs, () => reader.describe(id), isStopped)
  }

  /**
   * Waits until `isWanted` returns true for the execution's state, the timeout has passed, the signal fires,
   * or this process stops.
   * @returns the last state that was read; null if the execution is deleted or expired
   * @throws PawlError `store-unavailable`, `store-refused`, `decryption-failed`
   */
  async until(
    description: ExecutionDescription,
    isWanted: (snapshot: ExecutionSnapshot) => boolean,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<ExecutionSnapshot | null> {
    let last = null as ExecutionSnapshot | null
    const check = (snapshot: ExecutionSnapshot) => {
      last = snapshot
      return isWanted(snapshot)
    }
    const controller = new AbortController()
    const stop = () => controller.abort()
    signal.addEventListener('abort', stop)
    this.#waiting.add(controller)
    if (signal.aborted || this.#stopped) stop()
    try {
      const { signal } = controller
      return await waitForExecution(this.#dependencies, description, check, timeoutMs, signal)
    } catch (error) {
      if (this.#stopped && last) return last // The store is closed and cannot be read any more.
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
}
