/** Reads and deletes the ticks of schedules, which are executions that start at a given time. */

import type { Database } from './database/database.ts'
import { PgArray } from './database/pg-array.ts'
import { withStoreErrors } from './database/store-errors.ts'
import { type ScheduleStatements, scheduleStatements } from './sql/schedule-statements.ts'

/** Reads and deletes the ticks of schedules. */
export class ScheduleStore {
  readonly #db: Database
  readonly #sql: ScheduleStatements

  /** @param schema the schema's name, as given by the user */
  constructor(db: Database, schema: string) {
    this.#db = db
    this.#sql = scheduleStatements(`"${schema}"`)
  }

  /** The database's time, in whole milliseconds. */
  async now(): Promise<Date> {
    const [row] = await withStoreErrors(this.#db.query(this.#sql.now, []))
    return new Date(Number(BigInt(row?.[0] as string) / 1000n))
  }

  /** The key of each handler's next tick, in the order of the handlers; null if it has none. */
  async nextTickKeys(handlers: readonly string[]): Promise<(string | null)[]> {
    const values = [new PgArray('text', handlers)]
    const rows = await withStoreErrors(this.#db.query(this.#sql.nextTickKeys, values))
    return rows.map(([key]) => key as string | null)
  }

  /**
   * Deletes overdue ticks of the schedule's former expressions, which no process can run any more.
   * @param prefix the common prefix of the handlers of all ticks of the schedule
   * @param except the handler whose ticks stay
   * @param overdueMs deletes only ticks that have been due for longer than this, in ms
   * @returns how many ticks were deleted
   */
  async deleteObsoleteTicks(prefix: string, except: string, overdueMs: number): Promise<number> {
    const values = [prefix, except, overdueMs]
    return (await withStoreErrors(this.#db.query(this.#sql.deleteObsoleteTicks, values))).length
  }
}
