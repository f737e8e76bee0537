/** Reads which executions wait for each other, lends places in queues, and ends waits in a circle. */

import type { Database } from './database/database.ts'
import { withStoreErrors } from './database/store-errors.ts'
import type { ExecutionKind } from './execution-store.ts'
import { MAX_VISITED, type WaitStatements, waitStatements } from './sql/wait-statements.ts'

/** An unfinished execution that others wait for, or that waits for others. */
export interface Blocked {
  id: string
  kind: ExecutionKind
  name: string
  key: string
  scope: string
  /** In microseconds since 1970. */
  createdAt: bigint
  /** Whether it is suspended until something happens. */
  isSuspended: boolean
  /** Whether a time, a signal or a retry makes it go on as well. */
  goesOn: boolean
  /** Its place in its queue; null if it is in none. */
  place: 'arriving' | 'delayed' | 'key' | 'queue' | 'in' | 'lent' | null
  queue: string | null
  lane: string | null
  /** Whether it waits for a queue that has room. */
  isQueueOpen: boolean
  /** The ids of the executions whose results it waits for. */
  awaits: readonly string[]
  /** The id of the execution whose place it has. */
  lender: string | null
}

/** Why a wait ends with an error: the execution whose result it wants waits for this one. */
export interface Deadlock {
  /** The id of the execution whose result is awaited. */
  execution: string
  /** The executions of the circle, for people. */
  circle: string[]
}

/** Reads and changes what executions wait for. */
export class WaitStore {
  readonly #db: Database
  readonly #sql: WaitStatements

  /** @param schema the schema's name, as given by the user */
  constructor(db: Database, schema: string) {
    this.#db = db
    this.#sql = waitStatements(`"${schema}"`)
  }

  /** The execution, those that wait for it, and all that these wait for; none if these are too many to tell. */
  async walk(id: string): Promise<Blocked[]> {
    const rows = await withStoreErrors(this.#db.query(this.#sql.walk, [id]))
    if (rows.length >= MAX_VISITED) return []
    return rows.map(
      ([
        id,
        kind,
        name,
        key,
        scope,
        createdAt,
        isSuspended,
        goesOn,
        place,
        queue,
        lane,
        ...rest
      ]) => {
        const [isQueueOpen, awaits, lender] = rest
        return {
          ...({ id, kind, name, key, scope, place, queue, lane, lender } as Blocked),
          createdAt: BigInt(createdAt as string),
          isSuspended: isSuspended === true,
          goesOn: goesOn !== false,
          isQueueOpen: isQueueOpen === true,
          awaits: awaits ? String(awaits).split(',') : [],
        }
      },
    )
  }

  /**
   * The ids of executions that wait for others, or did when they were last suspended.
   * @param after only ids greater than this one
   */
  async listWaiting(after: string, limit: number): Promise<string[]> {
    const rows = await withStoreErrors(this.#db.query(this.#sql.listWaiting, [after, limit]))
    return rows.map(([id]) => id as string)
  }

  /** Lends the place of an execution that waits to one that it waits for. @returns whether it did */
  async lend(lender: string, borrower: string): Promise<boolean> {
    const rows = await withStoreErrors(this.#db.query(this.#sql.lend, [lender, borrower]))
    return rows.length > 0
  }

  /** Ends the wait of an execution with an error. @returns false if it does not wait any more */
  async breakCircle(id: string, deadlock: Deadlock): Promise<boolean> {
    const values = [id, JSON.stringify(deadlock)]
    const rows = await withStoreErrors(this.#db.query(this.#sql.breakCircle, values))
    return rows.length > 0
  }
}
