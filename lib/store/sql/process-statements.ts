/** The statements that register processes and keep their heartbeats. */

import { sqlFragments } from './fragments.ts'

/** The SQL texts by name. They follow the rules of ExecutionStatements. */
export type ProcessStatements = ReturnType<typeof processStatements>

/** @param schema the schema's name, quoted as an identifier */
export function processStatements(schema: string) {
  const { now, clock, handlers, milliseconds } = sqlFragments(schema)

  return {
    /**
     * Registers the process and deletes its predecessor under the same instance name, whose executions workers
     * may resume at once. Safe: each process inserts its own row. If two start under one name at once, both rows
     * may remain, which is right, since both processes are alive.
     *
     * The wakeup of a running execution is due within a lease, unless it is due already. So the executions of the
     * predecessor are found in that range of each handler, and not by a search of all executions; if there was no
     * predecessor, nothing is read. A locked wakeup is skipped: whoever holds it leases the execution, ends it or
     * makes it due, and waiting for it could deadlock.
     */
    register: `
      with recursive ${clock},
      retired as (
        delete from ${schema}.processes where instance = $2::text and id <> $1::uuid
        returning id, expires_at - heartbeat as lease
      ),
      registered as (
        insert into ${schema}.processes
          (id, instance, host, pid, version, started_at, heartbeat, expires_at, queues)
        select $1::uuid, $2::text, $3::text, $4::int4, $5::text, now, now, now + ${milliseconds('$6::int8')},
          $7::jsonb
        from clock
        on conflict (id) do update
          set heartbeat = excluded.heartbeat, expires_at = excluded.expires_at, queues = excluded.queues
      ),
      ${handlers('exists (select from retired)')},
      leased as materialized (
        select found.execution_id
        from handlers
        cross join generate_series(0, 9) as priorities (priority)
        cross join lateral (
          select w.execution_id from ${schema}.wakeups w
          where w.admitted and w.handler = handlers.handler and w.priority = priorities.priority and w.begun
            and w.due_at > (select now from clock)
            and w.due_at <= (select max(clock.now + greatest(lease, ${milliseconds('$6::int8')})) from retired, clock)
          offset 0
        ) as found
      ),
      interrupted as materialized (
        select e.id from ${schema}.executions e
        where e.id = any (array(select execution_id from leased)) and e.status = 'running'
          and e.owner = any (array(select id from retired))
      ),
      woken as (
        update ${schema}.wakeups set due_at = clock.now
        from clock
        where execution_id = any (array(
          select w.execution_id from ${schema}.wakeups w
          where w.execution_id = any (array(select id from interrupted))
          for update skip locked))
      )
      select id from retired`,

    /** Renews the process's row. Safe: only its own process updates it. Returns no row if it was deleted. */
    heartbeat: `
      with ${clock}
      update ${schema}.processes p
      set heartbeat = clock.now, expires_at = clock.now + ${milliseconds('$2::int8')}
      from clock
      where p.id = $1::uuid
      returning p.id`,

    /** Stores the handlers of queues that the process runs. Safe: only its own process updates its row. */
    announceQueues: `update ${schema}.processes set queues = $2::jsonb where id = $1::uuid`,

    /** Deletes the process's row. Safe: repeating it has no effect. */
    unregister: `delete from ${schema}.processes where id = $1::uuid`,

    /** Deletes the rows of processes that died a day ago. Safe: an owner without a row counts as dead as well. */
    deleteDeadProcesses: `
      delete from ${schema}.processes where expires_at < ${now} - interval '1 day' returning 1`,
  }
}
