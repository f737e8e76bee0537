/** Reads and writes the queues: their limits, their counts, and the executions that arrive in them. */

import type { Database, Row } from './database/database.ts'
import { column, PgArray } from './database/pg-array.ts'
import { withStoreErrors } from './database/store-errors.ts'
import { GroupCommit } from './group-commit.ts'
import { type QueueStatements, queueStatements } from './sql/queue-statements.ts'

/** The limits of a queue; null for no limit. */
export interface QueueLimits {
  concurrency: number | null
  concurrencyPerKey: number | null
  /** How many executions may begin within a period, in ms. */
  rate: { limit: number; periodMs: number } | null
  /** How many executions may wait. */
  maxDepth: number | null
}

/** A queue, or a lane of it: the executions of one key. */
export interface Lane {
  queue: string
  /** Null for the queue alone. */
  lane: string | null
}

/** What somebody who left a queue, or a lane of it, has done to it. */
export interface Advance extends Lane {
  /** How many executions were let in. */
  entered: number
  /** Whether more could be let in, but were not seen. */
  hasMore: boolean
}

/** What a worker has to do for a queue. */
export interface QueueLook {
  queue: string
  /** The time until an execution arrives, in ms: zero or less if one has; null if none is on its way. */
  arrivesMs: number | null
  /** Whether waiting executions can be let in. */
  isOpen: boolean
  /** The time until the rate limit lets in more, in ms; null if it does not limit at present. */
  rateLimitedMs: number | null
}

/** A count that was wrong: by how much it was corrected. */
export interface Correction extends Lane {
  held: number
  waiting: number
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
  readonly #depths: GroupCommit<string, number>
  /** The queues whose limits this process has stored, or is storing. */
  readonly #defined = new Map<string, { stored: Promise<void>; byWorker: boolean }>()

  /** @param schema the schema's name, as given by the user */
  constructor(db: Database, schema: string) {
    this.#db = db
    this.#sql = queueStatements(`"${schema}"`)
    this.#depths = new GroupCommit((batch) => this.#depth(batch), db.timeoutMs)
  }

  /**
   * Stores the limits of queues that this process has not stored yet.
   * @param isWorker whether this process runs their executions. If not, limits that are stored stay as they are
   */
  async defineQueues(
    queues: readonly { name: string; limits: QueueLimits }[],
    isWorker: boolean,
  ): Promise<void> {
    const missing = queues.filter(({ name }) => {
      const defined = this.#defined.get(name)
      return !defined || (isWorker && !defined.byWorker)
    })
    if (missing.length > 0) {
      const stored = this.#storeLimits(missing, isWorker)
      for (const { name } of missing) this.#defined.set(name, { stored, byWorker: isWorker })
      stored.catch(() => {
        for (const { name } of missing) {
          if (this.#defined.get(name)?.stored === stored) this.#defined.delete(name)
        }
      })
    }
    // One after the other, so that the callers for one queue go on in the order of their calls.
    for (const { name } of queues) await this.#defined.get(name)?.stored
  }

  async #storeLimits(
    queues: readonly { name: string; limits: QueueLimits }[],
    overwrites: boolean,
  ): Promise<void> {
    await this.#query(this.#sql.defineQueues, [
      column('text', queues, ({ name }) => name),
      column('int4', queues, ({ limits }) => limits.concurrency),
      column('int4', queues, ({ limits }) => limits.concurrencyPerKey),
      column('int4', queues, ({ limits }) => limits.rate?.limit ?? null),
      column('int8', queues, ({ limits }) => limits.rate?.periodMs ?? null),
      column('int4', queues, ({ limits }) => limits.maxDepth),
      overwrites,
    ])
  }

  /** For each queue: what there is to do for it. @param kinds the handlers that this process can run */
  async look(kinds: readonly { queue: string; handler: string }[]): Promise<QueueLook[]> {
    const rows = await this.#query(this.#sql.look, [
      column('text', kinds, (kind) => kind.queue),
      column('text', kinds, (kind) => kind.handler),
    ])
    return rows.map(([queue, arrivesMs, isOpen, rateLimitedMs]) => ({
      queue: queue as string,
      arrivesMs: arrivesMs === null ? null : Number(arrivesMs),
      isOpen: isOpen as boolean,
      rateLimitedMs: rateLimitedMs === null ? null : Number(rateLimitedMs),
    }))
  }

  /**
   * Lets in, or sets in line, at most `limit` executions that are due.
   * @returns how many, and the ids of those that were not let in although other executions wait for them
   */
  async arrive(
    queue: string,
    handlers: readonly string[],
    limit: number,
  ): Promise<{ count: number; wanted: string[] }> {
    const values = [queue, new PgArray('text', handlers), limit]
    const rows = await this.#query(this.#sql.arrive, values)
    const wanted = rows.filter(([, isWanted]) => isWanted === true)
    return { count: rows.length, wanted: wanted.map(([id]) => id as string) }
  }

  /** Lets in as many as there is room for. @returns how many, and whether there may be more */
  async promote(lanes: readonly Lane[]): Promise<{ entered: number; hasMore: boolean }> {
    const [row] = await this.#query(this.#sql.promote, [
      column('text', lanes, ({ queue }) => queue),
      column('text', lanes, ({ lane }) => lane),
    ])
    return { entered: (row?.[0] ?? 0) as number, hasMore: row?.[1] === true }
  }

  /**
   * Claims the queues whose counts nobody has compared with their executions for a while.
   * @param afterMs for how long, in ms
   */
  async claimCheck(queues: readonly string[], afterMs: number): Promise<string[]> {
    const rows = await this.#query(this.#sql.claimCheck, [new PgArray('text', queues), afterMs])
    return rows.map(([name]) => name as string)
  }

  /**
   * Corrects the counts of a queue and its lanes.
   * @returns the corrections, and the lanes that have room although somebody waits
   */
  async mend(queue: string): Promise<{ corrections: Correction[]; open: Lane[] }> {
    const rows = await this.#query(this.#sql.mend, [queue])
    const of = (kinds: string[]) => rows.filter(([kind]) => kinds.includes(kind as string))
    const toLane = (row: Row) => ({ queue, lane: row[1] as string | null })
    return {
      corrections: of(['queue', 'lane']).map((row) => ({
        ...toLane(row),
        held: row[2] as number,
        waiting: row[3] as number,
      })),
      open: of(['open']).map(toLane),
    }
  }

  /** The other queues in which executions of these handlers still wait. @param known the names of the queues that are known */
  async formerQueues(
    handlers: readonly string[],
    known: readonly string[],
  ): Promise<{ queue: string; handler: string }[]> {
    const values = [new PgArray('text', handlers), new PgArray('text', known)]
    const rows = await this.#query(this.#sql.formerQueues, values)
    return rows.map(([queue, handler]) => ({ queue: queue as string, handler: handler as string }))
  }

  /** Counts executions that have begun: they no longer wait. */
  async begin(queue: string, count: number): Promise<void> {
    await this.#query(this.#sql.begin, [queue, count])
  }

  /**
   * How many executions wait in a queue. Concurrent calls count each other, since each is about to add an
   * execution.
   */
  depth(queue: string): Promise<number> {
    return withStoreErrors(this.#depths.run(queue))
  }

  /** Counts a queue's executions. */
  async counts(queue: string): Promise<QueueCounts> {
    const [row] = await this.#query(this.#sql.counts, [queue])
    const [waiting, delayed, running, oldest] = row ?? [0, 0, 0, null]
    return {
      waiting: waiting as number,
      delayed: delayed as number,
      running: running as number,
      oldest: oldest as number | null,
    }
  }

  #query(sql: string, values: Parameters<Database['query']>[1]): Promise<Row[]> {
    return withStoreErrors(this.#db.query(sql, values))
  }

  async #depth(batch: string[]): Promise<number[]> {
    const rows = await this.#db.query(this.#sql.depth, [new PgArray('text', batch)])
    const depths = new Array<number>(batch.length)
    const callsBefore = new Map<string, number>()
    for (const [n, depth] of rows) {
      const at = (n as number) - 1
      const queue = batch[at] as string
      const before = callsBefore.get(queue) ?? 0
      callsBefore.set(queue, before + 1)
      depths[at] = (depth as number) + before
    }
    return depths
  }
}

/** Reads the columns of an {@link Advance}. */
export function toAdvance([queue, lane, entered, hasMore]: Row): Advance {
  return {
    queue: queue as string,
    lane: lane as string | null,
    entered: entered as number,
    hasMore: hasMore as boolean,
  }
}
