/** Reads and writes the queues: their slots, and the executions that wait for one. */

import type { Database } from './database/database.ts'
import { column, PgArray } from './database/pg-array.ts'
import { withStoreErrors } from './database/store-errors.ts'
import { GroupCommit } from './group-commit.ts'
import { type QueueStatements, queueStatements } from './sql/queue-statements.ts'

/** The minimum number of waiting executions to read when there is a limit per key. */
const MIN_SCAN = 100

/** The limits of a queue; null for no limit. */
export interface QueueLimits {
  concurrency: number | null
  concurrencyPerKey: number | null
  /** How many executions may begin within a period, in ms. */
  rate: { limit: number; periodMs: number } | null
}

/** The result of one admission. */
export interface Admission {
  /** How many executions were admitted. */
  admitted: number
  /** How many were marked as blocked, because their lane is full. Others behind them may now be admitted. */
  blocked: number
  /** Whether nothing was admitted because another process is admitting, or has just done so: try again. */
  skipped: boolean
  /** The time until the rate limit admits the next one, in ms; null if it does not limit at present. */
  rateLimitedMs: number | null
}

/** A lane of a queue (the executions of one key), and how many slots the lane has. */
export interface QueueLane {
  queue: string
  lane: string
  slots: number
}

/** The counts of a queue's executions. */
export interface QueueCounts {
  waiting: number
  delayed: number
  running: number
  /** When the first of the waiting executions arrived, in ms since 1970; null if none waits. */
  oldest: number | null
}

/** Reads and writes queues. */
export class QueueStore {
  readonly #db: Database
  readonly #sql: QueueStatements
  readonly #depths: GroupCommit<{ queue: string; max: number }, number>
  readonly #unblocks: GroupCommit<QueueLane, null>

  /** @param schema the schema's name, as given by the user */
  constructor(db: Database, schema: string) {
    this.#db = db
    this.#sql = queueStatements(`"${schema}"`)
    this.#depths = new GroupCommit((batch) => this.#depth(batch), db.timeoutMs)
    this.#unblocks = new GroupCommit((batch) => this.#unblockNext(batch), db.timeoutMs)
  }

  /** Inserts each queue's gate row, which serializes its admissions, unless it exists. */
  async createGates(queues: readonly string[]): Promise<void> {
    await withStoreErrors(this.#db.query(this.#sql.createGates, [new PgArray('text', queues)]))
  }

  /** For each queue with waiting executions: the time until the first is due, in ms. */
  async nextDue(
    kinds: readonly { queue: string; handler: string }[],
  ): Promise<Map<string, number>> {
    const values = [
      column('text', kinds, (kind) => kind.queue),
      column('text', kinds, (kind) => kind.handler),
    ]
    const rows = await withStoreErrors(this.#db.query(this.#sql.nextDue, values))
    return new Map(rows.map(([queue, dueMs]) => [queue as string, Number(dueMs)]))
  }

  /**
   * Admits due executions, as far as the limits allow.
   * @param handlers the handlers that this process can run
   * @param capacity how many to admit at most
   */
  async admit(
    queue: string,
    limits: QueueLimits,
    handlers: readonly string[],
    capacity: number,
  ): Promise<Admission> {
    const values = [
      queue,
      new PgArray('text', handlers),
      capacity,
      limits.concurrency,
      limits.concurrencyPerKey,
      limits.rate?.limit ?? null,
      limits.rate?.periodMs ?? null,
      limits.concurrencyPerKey === null ? capacity : Math.max(capacity, MIN_SCAN),
    ]
    const [row] = await withStoreErrors(this.#db.query(this.#sql.admit, values))
    const [admitted, blocked, hasWaiting, hasGate, rateLimitedMs] = row ?? [
      0,
      0,
      false,
      false,
      null,
    ]
    return {
      admitted: admitted as number,
      blocked: blocked as number,
      skipped: hasWaiting === true && hasGate !== true,
      rateLimitedMs: rateLimitedMs === null ? null : Number(rateLimitedMs),
    }
  }

  /** Unblocks the first executions of a lane, as many as it has free slots. */
  async unblockNext(lane: QueueLane): Promise<void> {
    await withStoreErrors(this.#unblocks.run(lane))
  }

  /** The lanes with blocked executions although they have free slots. @param slots how many slots each lane has */
  async stuckLanes(queue: string, slots: number): Promise<QueueLane[]> {
    const rows = await withStoreErrors(this.#db.query(this.#sql.stuckLanes, [queue, slots]))
    return rows.map(([lane]) => ({ queue, lane: lane as string, slots }))
  }

  /** Deletes slots that are held by no execution any more. */
  async freeOrphanedSlots(queues: readonly string[]): Promise<void> {
    await withStoreErrors(
      this.#db.query(this.#sql.freeOrphanedSlots, [new PgArray('text', queues)]),
    )
  }

  /**
   * How many executions wait in a queue, counted up to `max`. Concurrent calls count each other, since each is about
   * to add an execution.
   */
  depth(queue: string, max: number): Promise<number> {
    return withStoreErrors(this.#depths.run({ queue, max }))
  }

  /** Counts a queue's executions. */
  async counts(queue: string): Promise<QueueCounts> {
    const [row] = await withStoreErrors(this.#db.query(this.#sql.counts, [queue]))
    const [waiting, delayed, running, oldest] = row ?? [0, 0, 0, null]
    return {
      waiting: waiting as number,
      delayed: delayed as number,
      running: running as number,
      oldest: oldest as number | null,
    }
  }

  async #unblockNext(batch: QueueLane[]): Promise<null[]> {
    await this.#db.query(this.#sql.unblockNext, [
      column('text', batch, (lane) => lane.queue),
      column('text', batch, (lane) => lane.lane),
      column('int4', batch, (lane) => lane.slots),
    ])
    return batch.map(() => null)
  }

  async #depth(batch: { queue: string; max: number }[]): Promise<number[]> {
    const rows = await this.#db.query(this.#sql.depth, [
      column('text', batch, ({ queue }) => queue),
      column('int4', batch, ({ max }) => max),
    ])
    const depths = new Array<number>(batch.length)
    const callsBefore = new Map<string, number>()
    for (const [n, depth] of rows) {
      const at = (n as number) - 1
      const { queue } = batch[at] as { queue: string }
      const before = callsBefore.get(queue) ?? 0
      callsBefore.set(queue, before + 1)
      depths[at] = (depth as number) + before
    }
    return depths
  }
}
