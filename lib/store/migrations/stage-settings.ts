/** The settings of PostgreSQL under which the stages of a migration run. */

import type { Query } from '../database/database.ts'
import { PgArray } from '../database/pg-array.ts'

/** Timeouts that a role or a database may have, and that would end a long stage. */
const TIMEOUTS = ['statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout']

/** In ms; 0 for none. */
export interface StageSettings {
  lock_timeout: number
  /** After this much silence of the client, PostgreSQL rolls its transaction back. Default 0. */
  idle_in_transaction_session_timeout?: number
}

/**
 * Lifts the timeouts of the role, and sets those that are given.
 * @param scope what for: the running transaction, or the session
 * @returns the process id of the backend
 */
export async function applySettings(
  query: Query,
  scope: 'transaction' | 'session',
  settings: StageSettings,
): Promise<number> {
  const all = { ...Object.fromEntries(TIMEOUTS.map((name) => [name, 0])), ...settings }
  const names = new PgArray('text', Object.keys(all))
  const values = new PgArray(
    'text',
    Object.values(all).map((ms) => `${ms}ms`),
  )
  // Joined with those that there are: PostgreSQL has transaction_timeout since version 17.
  const [row] = await query(
    `select pg_catalog.pg_backend_pid(), pg_catalog.count(pg_catalog.set_config(s.name, t.value, $3::bool))
     from unnest($1::text[], $2::text[]) as t (name, value)
     join pg_catalog.pg_settings s on s.name = t.name`,
    [names, values, scope === 'transaction'],
  )
  return row?.[0] as number
}
