/** The statements that find and delete the ticks of schedules. */

import { sqlFragments } from './fragments.ts'

/** The SQL texts by name. They follow the rules of ExecutionStatements. */
export type ScheduleStatements = ReturnType<typeof scheduleStatements>

/** @param schema the schema's name, quoted as an identifier */
export function scheduleStatements(schema: string) {
  const { now, clock, handlers, toMicros, milliseconds } = sqlFragments(schema)

  return {
    /** The database's time. Safe: only reads. */
    now: `select ${toMicros(now)}::text`,

    /** The key of each handler's next tick, in the order of the handlers. Safe: only reads. */
    nextTickKeys: `
      select found.key
      from unnest($1::text[]) with ordinality as handlers (handler, n)
      left join lateral (
        select e.key
        from ${schema}.wakeups w join ${schema}.executions e on e.id = w.execution_id
        where w.admitted and w.priority = 0 and not w.begun and w.handler = handlers.handler
          and e.status <> 'running'
        order by w.due_at limit 1
      ) as found on true
      order by handlers.n`,

    /**
     * Deletes ticks of a schedule's other expressions that have been due for a while and have never run: no process
     * has such an expression any more. Safe: deletes only executions that wait and have never run, checked under
     * the row's lock; a worker that is leasing one holds the lock of its wakeup, which SKIP LOCKED skips. Locks are
     * taken in the same order as in leaseDue.
     */
    deleteObsoleteTicks: `
      with recursive ${clock},
      ${handlers('true')},
      obsolete as (
        select w.execution_id from ${schema}.wakeups w
        where w.admitted and w.priority = 0 and not w.begun
          and w.handler = any (array(
            select handler from handlers where starts_with(handler, $1::text) and handler <> $2::text))
          and w.due_at <= (select now - ${milliseconds('$3::int8')} from clock)
        for update skip locked
      ),
      deleted as (
        delete from ${schema}.executions
        where id = any (array(select execution_id from obsolete)) and status = 'waiting' and attempt = 0
        returning id
      )
      delete from ${schema}.wakeups where execution_id = any (array(select id from deleted))
      returning execution_id`,
  }
}
