/** The settings of PostgreSQL under which the stages of a migration run. */

import type { Query } from '../database/database.ts'
import { PgArray } from '../database/pg-array.ts'

/** Those that a role or a database may have, and that would end a long statement. Not all versions know all. */
const TIMEOUTS = ['statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout']

/**
 * Lifts the timeouts and sets lock_timeout.
 * @param scope what for: the running transaction, or the session
 * @param lockTimeoutMs 0 to wait for ever
 * @returns the process id of the backend
 */
export async function applySettings(
  query: Query,
  scope: 'transaction' | 'session',
  lockTimeoutMs: number,
): Promise<number> {
  const [row] = await query(
    `select pg_catalog.pg_backend_pid(),
       pg_catalog.set_config('lock_timeout', $1, $2::bool),
       (select pg_catalog.count(pg_catalog.set_config(name, '0', $2::bool))
        from pg_catalog.pg_settings where name = any ($3::text[]))`,
    [`${lockTimeoutMs}ms`, scope === 'transaction', new PgArray('text', TIMEOUTS)],
  )
  return row?.[0] as number
}
