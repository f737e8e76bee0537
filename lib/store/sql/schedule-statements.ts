import { fragments } from './fragments.ts'

/** The SQL of schedules. The rules of statements.ts hold here too. */
export type ScheduleStatements = ReturnType<typeof scheduleStatements>

/** @param schema the schema's name, quoted as an identifier */
export function scheduleStatements(schema: string) {
  const { now, clock, micros, ms } = fragments(schema)

  return {
    /** The database's time. Safe: reads. */
    now: `select ${micros(now)}::text`,

    /** The key of the tick that comes next, for each handler in its order. Safe: reads. */
    nextTicks: `
      select found.key
      from unnest($1::text[]) with ordinality as handlers (handler, n)
      left join lateral (
        select e.key
        from ${schema}.wakeups w join ${schema}.executions e on e.id = w.execution_id
        where w.admitted and w.priority = 0 and w.handler = handlers.handler and e.status <> 'running'
        order by w.due_at limit 1
      ) as found on true
      order by handlers.n`,

    /**
     * Deletes ticks of a schedule under another expression than this one's that have been due for a while
     * and that nobody has begun: no process has that expression any more. Safe: only what waits and has never
     * been run is deleted, judged under the row's lock; a worker that is taking it holds its wakeup, which
     * SKIP LOCKED passes over. Locks are taken in the order of takeDue. The handlers there are, are found by
     * jumping through the index from one to the next.
     */
    forgetTicks: `
      with recursive ${clock},
      handlers (handler) as (
        (select w.handler from ${schema}.wakeups w where w.admitted order by w.handler limit 1)
        union all
        select (
          select w.handler from ${schema}.wakeups w
          where w.admitted and w.handler > h.handler
          order by w.handler limit 1)
        from handlers h where h.handler is not null
      ),
      replaced as (
        select w.execution_id from ${schema}.wakeups w
        where w.admitted and w.priority = 0
          and w.handler = any (array(
            select handler from handlers where starts_with(handler, $1::text) and handler <> $2::text))
          and w.due_at <= (select now - ${ms('$3::int8')} from clock)
        for update skip locked
      ),
      forgotten as (
        delete from ${schema}.executions
        where id = any (array(select execution_id from replaced)) and status = 'waiting' and attempt = 0
        returning id
      )
      delete from ${schema}.wakeups where execution_id = any (array(select id from forgotten))
      returning execution_id`,
  }
}
