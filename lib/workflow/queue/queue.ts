/** A queue: limits that the executions of several workflows share across all processes. */

import type { Duration } from '../../options/parse-options.ts'
import type { QueueLimits, QueueStore } from '../../store/queue-store.ts'
import type { QueueSettings } from '../option-schemas.ts'

/** Options of `pawl.queue()`. The limits apply across all processes. */
export interface QueueOptions {
  /** How many of the queue's executions may be in progress, including sleeping ones. Default: no limit. */
  concurrency?: number
  /** The same limit for each `queueKey`; 1: one at a time, in the order of arrival. Default: no limit. */
  concurrencyPerKey?: number
  /** How many executions may begin within any period of this length. Default: no limit. */
  rateLimit?: { limit: number; period: Duration }
  /**
   * How many executions may wait; a start beyond that is refused (`limit-exceeded`). Concurrent starts may
   * exceed the limit by a few. Default: no limit.
   */
  maxDepth?: number
}

/** The current counts of a queue's executions. */
export interface Backlog {
  /** How many wait to be admitted. */
  waiting: number
  /** How many were started with a `delay` that has not passed yet. */
  delayed: number
  /** How many are in progress, including sleeping ones. */
  running: number
  /** When the waiting execution that has waited longest began to wait; null if none waits. */
  oldest: Date | null
}

/** A queue, as `pawl.queue(name, options)` returns it. Its limits apply to the workflows that name it. */
export class Queue {
  readonly name: string
  /** @internal */
  readonly limits: QueueLimits
  readonly #store: () => QueueStore

  /** @internal */
  constructor(name: string, settings: QueueSettings, store: () => QueueStore) {
    const { concurrency, concurrencyPerKey, rateLimit, maxDepth } = settings
    this.name = name
    this.limits = {
      concurrency: concurrency ?? null,
      concurrencyPerKey: concurrencyPerKey ?? null,
      rate: rateLimit ? { limit: rateLimit.limit, periodMs: rateLimit.period } : null,
      maxDepth: maxDepth ?? null,
    }
    this.#store = store
  }

  /** Reads the current counts of the queue's executions. @throws PawlError `not-started`, `store-unavailable` */
  async backlog(): Promise<Backlog> {
    const { oldest, ...counts } = await this.#store().counts(this.name)
    return { ...counts, oldest: oldest === null ? null : new Date(oldest) }
  }
}
