/** Finds out which lock a statement waits for, and who holds it. */

import type { Query } from '../database/database.ts'

/**
 * Describes the lock that a backend waits for and the session that holds it; null if it does not wait.
 * Roles without pg_read_all_stats see only the process ids of other roles' sessions.
 */
export async function describeLockWait(query: Query, pid: number): Promise<string | null> {
  const [row] = await query(
    `select coalesce(l.relation::regclass::text, l.locktype), b.pid, a.application_name, a.state,
       to_char(a.xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
     from pg_catalog.pg_locks l
     cross join lateral pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) as b (pid)
     left join pg_catalog.pg_stat_activity a on a.pid = b.pid
     where l.pid = $1::int4 and not l.granted
     order by a.xact_start nulls last limit 1`,
    [pid],
  )
  if (!row) return null
  const [lock, holder, application, state, since] = row
  const details = [
    `process ${holder}`,
    application,
    state,
    since && `in a transaction since ${since} UTC`,
  ]
  return `a lock on ${lock} (held by ${details.filter(Boolean).join(', ')})`
}
