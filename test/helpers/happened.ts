import { beforeAll } from 'vitest'
import type { TestDatabase } from './database.ts'

/** The tables in which test/apps/journal.ts leaves what really happened. */
export function withHappened(database: TestDatabase) {
  beforeAll(async () => {
    await database.pool.query(
      `create table happened (n serial, key text, what text, pid int, at timestamptz default clock_timestamp());
       create table orders (id serial, key text)`,
    )
  })
  return {
    /** How often each thing happened for a key. */
    async counts(key: string): Promise<Record<string, number>> {
      const { rows } = await database.pool.query(
        `select what, count(*)::int from happened where key = $1 group by what
         union all select 'order', count(*)::int from orders where key = $1`,
        [key],
      )
      return Object.fromEntries(rows.map(({ what, count }) => [what, count]))
    },
    async status(key: string): Promise<string | undefined> {
      const sql = 'select status from pawl.execution_log where key = $1'
      return (await database.pool.query(sql, [key])).rows[0]?.status
    },
    async steps(key: string) {
      const sql = 'select * from pawl.step_log where key = $1 order by position'
      return (await database.pool.query(sql, [key])).rows
    },
  }
}
