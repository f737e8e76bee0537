import type { Database } from './database/database.ts'
import { translate } from './database/store-errors.ts'
import { PgArray } from './database/pg-array.ts'
import { type ScheduleStatements, scheduleStatements } from './sql/schedule-statements.ts'

/** What schedules ask of Postgres. */
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
    const [row] = await translate(this.#db.query(this.#sql.now, []))
    return new Date(Number(BigInt(row?.[0] as string) / 1000n))
  }

  /** The key of the tick that comes next for each of these handlers; null if there is none. */
  async nextTicks(handlers: readonly string[]): Promise<(string | null)[]> {
    const values = [new PgArray('text', handlers)]
    const rows = await translate(this.#db.query(this.#sql.nextTicks, values))
    return rows.map(([key]) => key as string | null)
  }

  /**
   * Deletes ticks that nobody can run any more.
   * @param prefix what the handlers of all ticks of the schedule begin with
   * @param except the handler whose ticks stay
   * @param overdueMs since when they are due, at least
   * @returns how many
   */
  async forgetTicks(prefix: string, except: string, overdueMs: number): Promise<number> {
    const values = [prefix, except, overdueMs]
    return (await translate(this.#db.query(this.#sql.forgetTicks, values))).length
  }
}
