/** SQL fragments that several statements share: clock, time conversions, clean-up after an execution's end. */

/** @param schema the schema's name, quoted as an identifier */
export function sqlFragments(schema: string) {
  const now = `${schema}.now()`
  const raised = `case when current_setting('synchronous_commit') = 'off'
          then set_config('synchronous_commit', 'on', true) end as raised`
  return {
    now,
    /** A CTE that reads the clock once for a whole statement. */
    clock: `clock as materialized (select ${now} as now)`,
    /**
     * `clock` of a statement whose commit must be on disk before its reply: it raises synchronous_commit for this
     * transaction, only if it is off, and without another round trip. The other values are durable, and may be
     * stronger than 'on'. The statement must read the clock wherever it writes, or this is not evaluated.
     */
    durableClock: `clock as materialized (select ${now} as now, ${raised})`,
    /**
     * `durableClock` of a batch. It also makes the statement fail instead of waiting longer than `lockTimeout` (a
     * parameter, in ms) for a lock, unless that is null: an app's open transaction must not hold up others. What
     * locks rows must read the clock for it, or the lock may be waited for before.
     */
    batchClock: (lockTimeout: string) => `clock as materialized (
        select ${now} as now, ${raised},
          case when ${lockTimeout}::int8 is not null
            then set_config('lock_timeout', ${lockTimeout}::int8::text, true) end as patience
      )`,
    /**
     * Identifies one incarnation of an execution by its creation time. A row that was deleted, or reset after it
     * expired, has another created_at, so a process that still runs the former incarnation cannot write into the
     * new one.
     */
    incarnation: (row: string) => toMicros(`${row}.created_at`),
    toMicros,
    /** Converts microseconds since 1970 to a timestamp. */
    fromMicros: (column: string) => `timestamptz 'epoch' + ${column} * interval '1 microsecond'`,
    /**
     * CTEs that clean up after executions that have ended (`ended` has the columns id, wakes, waiters): delete their
     * wakeups, and wake the executions that wait for them. They cannot deadlock: the waiting executions are locked in
     * the order of their ids, so that two batches lock them in the same order. `except` is a condition for wakeups
     * `w` that are not woken.
     */
    afterEnd: (ended: string, except = 'false') => `deleted_wakeups as (
        delete from ${schema}.wakeups
        where execution_id = any (array(select id from ${ended} where wakes))
      ),
      notified as (
        update ${schema}.executions set inbox = inbox + 1
        where id = any (array(
            select e.id from ${schema}.executions e
            where e.id = any (array(select unnest(waiters) from ${ended})) and e.status <> 'done'
            order by e.id
            for no key update))
        returning id, status
      ),
      woken as (
        update ${schema}.wakeups w set due_at = least(w.due_at, clock.now)
        from clock
        where w.execution_id = any (array(select id from notified where status <> 'parked')) and w.due_at > clock.now
          and (${except}) is not true
      )`,
    /**
     * A CTE of a recursive query: the distinct handlers of admitted wakeups, with one index look-up each (a loose
     * index scan), and null after the last. None if `condition` is false.
     */
    handlers: (condition: string) => `handlers (handler) as (
        (select w.handler from ${schema}.wakeups w where w.admitted and ${condition}
          order by w.handler limit 1)
        union all
        select (
          select w.handler from ${schema}.wakeups w
          where w.admitted and w.handler > h.handler
          order by w.handler limit 1)
        from handlers h where h.handler is not null
      )`,
    /**
     * Whether the outcome of the execution `row` is kept beyond its retention, because an unfinished execution that
     * started it or waits for it has not journaled it yet. Of a done execution, once this is false, it stays false (
     * `continueAs` carries over only what is not journaled):
     * waiters are added only before the end, and an end, a journal entry and an incarnation are never undone. So
     * statements that ask one after the other agree.
     *
     * The incarnation that started it is in the row; one that waits was created before the end. A later incarnation
     * under the same key is neither. Reads nothing if the execution has neither parent nor waiters; otherwise does
     * index look-ups by primary key, whatever the statistics say (`offset 0`, and not "exists", which the planner may
     * evaluate for all rows at once).
     */
    isKept: (
      row: string,
    ) => `case when ${row}.parent_life is null and ${row}.waiters is null then false
        else coalesce((
          select true
          from (
            select ${row}.parent as id, ${row}.parent_life as earliest, ${row}.parent_life as latest
            union all
            select waiter, '-infinity', ${row}.completed_at from unnest(${row}.waiters) as waiter
          ) as wanting
          cross join lateral (
            select other.id, other.created_at from ${schema}.executions other
            where other.id = wanting.id and other.created_at between wanting.earliest and wanting.latest
              and other.status <> 'done'
            offset 0
          ) as other
          where (select true from ${schema}.steps s
            where s.execution_id = other.id and s.life = other.created_at
              and s.name = 'result ' || ${row}.name || ' ' || ${row}.id::text and s.occurrence = 1) is null
          limit 1
        ), false) end`,
    /** Converts a number of milliseconds to an interval. */
    milliseconds: (column: string) => `${column} * interval '1 millisecond'`,
  }
}

/** Converts a timestamp to microseconds since 1970: exact, unlike a JavaScript Date. */
function toMicros(time: string): string {
  return `(extract(epoch from ${time}) * 1000000)::int8`
}
