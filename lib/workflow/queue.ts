import type { Duration } from '../parse-options.ts'
import type { QueueSettings } from './options.ts'

/** Options of a queue. Its limits hold over all processes. */
export interface QueueOptions {
  /** How many of its executions may be under way, sleeping ones too. Default: no limit. */
  concurrency?: number
  /** The same for each `queueKey`; 1: one at a time in the order of arrival. Default: no limit. */
  concurrencyPerKey?: number
  /** How many may begin within a period. Default: no limit. */
  rateLimit?: { limit: number; period: Duration }
  /** How many may wait; a start beyond that is refused (`limit-exceeded`). Default: no limit. */
  maxDepth?: number
}

/** A queue, from `pawl.queue(name, options)`: workflows that name it run under its limits. */
export class Queue {
  readonly name: string
  /** @internal */
  readonly settings: QueueSettings

  constructor(name: string, settings: QueueSettings) {
    this.name = name
    this.settings = settings
  }
}
