import type { Duration } from '../../options/parse-options.ts'
import type { QueueLimits, QueueStore } from '../../store/queue-store.ts'
import type { QueueSettings } from '../option-schemas.ts'

/** Options of a queue. Its limits hold over all processes. */
export interface QueueOptions {
  /** How many of its executions may be under way, sleeping ones too. Default: no limit. */
  concurrency?: number
  /** The same for each `queueKey`; 1: one at a time in the order of arrival. Default: no limit. */
  concurrencyPerKey?: number
  /** How many may begin within a period, any that long. Default: no limit. */
  rateLimit?: { limit: number; period: Duration }
  /**
   * How many may wait; a start beyond that is refused (`limit-exceeded`). Those that start at the same
   * moment may exceed it by a few. Default: no limit.
   */
  maxDepth?: number
}

/** How a queue stands. */
export interface Backlog {
  /** How many wait for their turn. */
  waiting: number
  /** How many begin later, since they were started with a `delay`. */
  delayed: number
  /** How many are under way, sleeping ones too. */
  running: number
  /** Since when the first of those that wait has waited; null if none does. */
  oldest: Date | null
}

/** A queue, from `pawl.queue(name, options)`: workflows that name it run under its limits. */
export class Queue {
  readonly name: string
  /** @internal */
  readonly limits: QueueLimits
  /** @internal How many may wait; null: no limit. */
  readonly maxDepth: number | null
  readonly #store: () => QueueStore

  /** @internal */
  constructor(name: string, settings: QueueSettings, store: () => QueueStore) {
    const { concurrency, concurrencyPerKey, rateLimit, maxDepth } = settings
    this.name = name
    this.limits = {
      concurrency: concurrency ?? null,
      concurrencyPerKey: concurrencyPerKey ?? null,
      rate: rateLimit ? { limit: rateLimit.limit, periodMs: rateLimit.period } : null,
    }
    this.maxDepth = maxDepth ?? null
    this.#store = store
  }

  /** @throws PawlError `not-started`, `store-unavailable` */
  async backlog(): Promise<Backlog> {
    const { oldest, ...counts } = await this.#store().backlog(this.name)
    return { ...counts, oldest: oldest === null ? null : new Date(oldest) }
  }
}
