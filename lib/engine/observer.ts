import type { Description } from '../store/describe.ts'
import type { Found, Outcome, Store } from '../store/store.ts'
import type { Watch } from '../store/watch.ts'
import { openOutcome } from './outcome.ts'
import { after, persist } from './retry/persist.ts'
import type { Sealer } from './values/seal.ts'

export type { Description } from '../store/describe.ts'

/** How an execution stands. */
export interface Sight {
  /** As the tables say; `interrupted` if the process that runs it is dead. */
  status: string
  attempt: number
  /** Of a final one. */
  outcome: Outcome | null
}

/** What an observer is made of. */
export interface ObserverParts {
  store: Store
  watch: Watch
  sealer: Sealer
  describe: (id: string) => Promise<Description | null>
  /** How long a question may wait for a store that cannot be reached, in ms. */
  storeTimeoutMs: number
}

/** Looks at executions, and waits for what becomes of them, without taking part. */
export class Observer {
  readonly #parts: ObserverParts
  readonly #waiting = new Set<AbortController>()
  #stopped = false

  constructor(parts: ObserverParts) {
    this.#parts = parts
  }

  /** @throws PawlError `store-unavailable`, `store-refused` */
  describe(id: string): Promise<Description | null> {
    return this.#ask(() => this.#parts.describe(id))
  }

  /**
   * How it stands; null if it is gone.
   * @throws PawlError `store-unavailable`, `store-refused`, `decryption-failed`
   */
  async look({ id, born }: Description): Promise<Sight | null> {
    const found = await this.#ask(() => this.#parts.store.look(id))
    // Under an expired key there may be another execution by now.
    if (found?.born !== born || found.expired) return null
    return this.#sight(id, found)
  }

  /**
   * Waits until `wanted` likes what it sees, the time is up, the signal fires, or this process stops.
   * @returns how it stands then; null if it is gone
   * @throws as `look` does
   */
  async until(
    description: Description,
    wanted: (sight: Sight) => boolean,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<Sight | null> {
    const { store, watch } = this.#parts
    const { id } = description
    let seen = await this.look(description)
    if (!seen || wanted(seen) || timeoutMs <= 0 || this.#stopped || signal.aborted) return seen
    await this.#ask(() => store.await(id))
    const controller = new AbortController()
    const stop = () => controller.abort()
    signal.addEventListener('abort', stop)
    this.#waiting.add(controller)
    if (signal.aborted || this.#stopped) stop()
    const look = async (): Promise<true | null> => {
      seen = await this.look(description)
      return !seen || wanted(seen) ? true : null
    }
    try {
      await watch.until(id, look, timeoutMs, controller.signal)
      return seen
    } catch (error) {
      if (this.#stopped) return seen // There is no store to look into any more.
      throw error
    } finally {
      signal.removeEventListener('abort', stop)
      this.#waiting.delete(controller)
    }
  }

  /** Lets everybody go who waits, and lets nobody wait any more. */
  stop(): void {
    this.#stopped = true
    for (const controller of this.#waiting) controller.abort()
  }

  /** Whether nobody may wait any more. */
  get isStopped(): boolean {
    return this.#stopped
  }

  #ask<T>(operation: () => Promise<T>): Promise<T> {
    const isOver = after(this.#parts.storeTimeoutMs)
    return persist(operation, () => this.#stopped || isOver())
  }

  #sight(id: string, { status, ownerAlive, attempt, outcome }: Found): Sight {
    return {
      status: status === 'running' && !ownerAlive ? 'interrupted' : status,
      attempt,
      outcome: outcome && openOutcome(this.#parts.sealer, id, outcome),
    }
  }
}
