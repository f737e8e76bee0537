import type pg from 'pg'
import { beforeAll } from 'vitest'
import type { TestDatabase } from './database.ts'

/** The table in which the apps of test/apps count what really ran. */
export function withRuns(database: TestDatabase): void {
  beforeAll(async () => {
    await database.pool.query(
      'create table runs (n bigint generated always as identity, key text, attempt int, pid int)',
    )
  })
}

/** How often the handler ran, for each key. */
export async function runsByKey(pool: pg.Pool): Promise<Map<string, number>> {
  const { rows } = await pool.query('select key, count(*)::int as n from runs group by key')
  return new Map(rows.map((row) => [row.key, row.n]))
}
