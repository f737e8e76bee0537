/** The parts that statements are made of. @param schema the schema's name, quoted as an identifier */
export function fragments(schema: string) {
  const now = `${schema}.now()`
  return {
    now,
    /** One reading of the clock for a whole statement. */
    clock: `clock as materialized (select ${now} as now)`,
    /**
     * Names one life of an execution: a row that was deleted, or reset after it expired, has another
     * created_at, so a process of its former life cannot write into the new one.
     */
    born: (row: string) => micros(`${row}.created_at`),
    micros,
    /** A point in time, given in microseconds since 1970. */
    at: (column: string) => `timestamptz 'epoch' + ${column} * interval '1 microsecond'`,
    /**
     * What follows from the end of executions (id, wakes, waiters): they need no wakeup and hold no slots,
     * and whoever sleeps until then is woken. The slots only after the wakeups, so that this cannot
     * wait in a circle with a worker, which locks them in that order; and the sleepers in the order of their
     * ids, so that two batches cannot wait for each other.
     */
    ended: (done: string) => `asleep as (
        delete from ${schema}.wakeups
        where execution_id = any (array(select id from ${done} where wakes))
        returning execution_id, queue
      ),
      freed as (
        delete from ${schema}.slots
        where execution_id = any (array(select execution_id from asleep where queue is not null))
          and held_until = 'infinity'
      ),
      news as (
        update ${schema}.executions set inbox = inbox + 1
        where id = any (array(
            select e.id from ${schema}.executions e
            where e.id = any (array(select unnest(waiters) from ${done})) and e.status <> 'done'
            order by e.id
            for no key update))
        returning id, status
      ),
      roused as (
        update ${schema}.wakeups w set due_at = least(w.due_at, clock.now)
        from clock
        where w.execution_id = any (array(select id from news where status <> 'parked'))
      )`,
    ms: (column: string) => `${column} * interval '1 millisecond'`,
  }
}

/** A point in time in microseconds since 1970: exact, unlike a JavaScript Date. */
function micros(time: string): string {
  return `(extract(epoch from ${time}) * 1000000)::int8`
}
