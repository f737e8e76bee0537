import type { Database } from './database/database.ts'
import { translate } from './database/store-errors.ts'
import { column, PgArray } from './database/pg-array.ts'
import { GroupCommit } from './group-commit.ts'
import { type QueueStatements, queueStatements } from './sql/queue-statements.ts'

/** How many are read to find those that can be let in, at least. */
const SCAN = 100

/** The limits of a queue; null: none. */
export interface QueueLimits {
  concurrency: number | null
  concurrencyPerKey: number | null
  /** At most so many begin within a period of so many ms. */
  rate: { limit: number; periodMs: number } | null
}

/** What came of letting in. */
export interface Admission {
  /** How many were let in. */
  admitted: number
  /** How many were put aside: others may come behind them. */
  aside: number
  /** Whether others are letting in, or have just done so: ask again. */
  passedBy: boolean
  /** In how many ms the rate lets the next one in; null if it is not the rate that keeps them. */
  rateMs: number | null
}

/** A lane of a queue, and how many slots it has. */
export interface LaneOf {
  queue: string
  lane: string
  places: number
}

/** How a queue stands. */
export interface Standing {
  waiting: number
  delayed: number
  running: number
  /** In ms since 1970. */
  oldest: number | null
}

/** What queues ask of Postgres. */
export class QueueStore {
  readonly #db: Database
  readonly #sql: QueueStatements
  readonly #depths = new GroupCommit<{ queue: string; most: number }, number>((batch) =>
    this.#depth(batch),
  )
  readonly #promotions = new GroupCommit<LaneOf, null>((batch) => this.#promote(batch))

  /** @param schema the schema's name, as given by the user */
  constructor(db: Database, schema: string) {
    this.#db = db
    this.#sql = queueStatements(`"${schema}"`)
  }

  /** Makes queues ready to let in. */
  async open(queues: readonly string[]): Promise<void> {
    await translate(this.#db.query(this.#sql.open, [new PgArray('text', queues)]))
  }

  /** Of each queue in which something waits: in how many ms the first is due. */
  async ready(kinds: readonly { queue: string; handler: string }[]): Promise<Map<string, number>> {
    const values = [
      column('text', kinds, (kind) => kind.queue),
      column('text', kinds, (kind) => kind.handler),
    ]
    const rows = await translate(this.#db.query(this.#sql.ready, values))
    return new Map(rows.map(([queue, dueMs]) => [queue as string, Number(dueMs)]))
  }

  /**
   * Lets in what is due, as far as the limits allow.
   * @param handlers what this process can run
   * @param room at most how many
   */
  async admit(
    queue: string,
    limits: QueueLimits,
    handlers: readonly string[],
    room: number,
  ): Promise<Admission> {
    const values = [
      queue,
      new PgArray('text', handlers),
      room,
      limits.concurrency,
      limits.concurrencyPerKey,
      limits.rate?.limit ?? null,
      limits.rate?.periodMs ?? null,
      limits.concurrencyPerKey === null ? room : Math.max(room, SCAN),
    ]
    const [row] = await translate(this.#db.query(this.#sql.admit, values))
    const [admitted, aside, waiting, open, rateMs] = row ?? [0, 0, false, false, null]
    return {
      admitted: admitted as number,
      aside: aside as number,
      passedBy: waiting === true && open !== true,
      rateMs: rateMs === null ? null : Number(rateMs),
    }
  }

  /** Lets the first of a lane go on, if its slots are free. */
  async promote(lane: LaneOf): Promise<void> {
    await translate(this.#promotions.run(lane))
  }

  /** Lanes in which some wait for something to end, and nothing is there that would. */
  async stuck(queue: string, places: number): Promise<LaneOf[]> {
    const rows = await translate(this.#db.query(this.#sql.stuck, [queue, places]))
    return rows.map(([lane]) => ({ queue, lane: lane as string, places }))
  }

  /** Frees slots that nobody holds any more. */
  async tidy(queues: readonly string[]): Promise<void> {
    await translate(this.#db.query(this.#sql.tidy, [new PgArray('text', queues)]))
  }

  /** How many wait, counted up to `most`; each that asks at once counts for the others. */
  depth(queue: string, most: number): Promise<number> {
    return translate(this.#depths.run({ queue, most }))
  }

  async backlog(queue: string): Promise<Standing> {
    const [row] = await translate(this.#db.query(this.#sql.backlog, [queue]))
    const [waiting, delayed, running, oldest] = row ?? [0, 0, 0, null]
    return {
      waiting: waiting as number,
      delayed: delayed as number,
      running: running as number,
      oldest: oldest as number | null,
    }
  }

  async #promote(batch: LaneOf[]): Promise<null[]> {
    await this.#db.query(this.#sql.promote, [
      column('text', batch, (lane) => lane.queue),
      column('text', batch, (lane) => lane.lane),
      column('int4', batch, (lane) => lane.places),
    ])
    return batch.map(() => null)
  }

  async #depth(batch: { queue: string; most: number }[]): Promise<number[]> {
    const rows = await this.#db.query(this.#sql.depth, [
      column('text', batch, ({ queue }) => queue),
      column('int4', batch, ({ most }) => most),
    ])
    const depths = new Array<number>(batch.length)
    const asked = new Map<string, number>()
    for (const [n, depth] of rows) {
      const at = (n as number) - 1
      const { queue } = batch[at] as { queue: string }
      const before = asked.get(queue) ?? 0
      asked.set(queue, before + 1)
      depths[at] = (depth as number) + before
    }
    return depths
  }
}
