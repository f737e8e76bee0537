/** The statements about executions that wait for each other: who waits for whom, loans of places, and circles. */

import { admissionFragments } from './admission-fragments.ts'
import { sqlFragments } from './fragments.ts'

/** How many executions a walk visits at most. */
export const MAX_VISITED = 2000

/** The SQL texts by name. They follow the rules of ExecutionStatements. */
export type WaitStatements = ReturnType<typeof waitStatements>

/** @param schema the schema's name, quoted as an identifier */
export function waitStatements(schema: string) {
  const { clock, durableClock, toMicros } = sqlFragments(schema)
  const { since, rateWith } = admissionFragments(schema)

  return {
    /**
     * Visits what an execution ($1) waits for, who waits for it, and what these wait for: a suspended execution waits for the
     * executions whose results it wants; one that has not begun for those in its lane or queue; one that has lent its
     * place for the one that has it. Safe: only reads. Of several executions that begin to wait at once, the last one
     * to commit sees the edges of all.
     */
    walk: `
      with recursive ${clock},
      waiters (id) as (
        select $1::uuid
        union
        select unnest(e.waiters) from waiters join ${schema}.executions e on e.id = waiters.id
      ),
      visited (id) as (
        select id from waiters
        union
        select next.id
        from visited
        cross join lateral (
          select unnest(w.awaits) as id
          from ${schema}.wakeups w join ${schema}.executions e on e.id = w.execution_id
          where w.execution_id = visited.id and e.status = 'waiting' and (w.place is null or w.place = 'in')
          union all
          select h.execution_id
          from ${schema}.wakeups w join ${schema}.wakeups h on h.queue = w.queue and h.lane = w.lane
          where w.execution_id = visited.id and w.place = 'key' and h.place in ('in', 'lent')
          union all
          select h.execution_id
          from ${schema}.wakeups w join ${schema}.wakeups h on h.queue = w.queue and h.lane = w.lane
          where w.execution_id = visited.id and w.place = 'key' and h.place = 'queue' and h.lane is not null
          union all
          select h.execution_id
          from ${schema}.wakeups w join ${schema}.wakeups h on h.queue = w.queue
          where w.execution_id = visited.id and w.place = 'queue' and h.place in ('in', 'lent')
          union all
          select b.execution_id
          from ${schema}.wakeups w join ${schema}.wakeups b on b.lender = w.execution_id
          where w.execution_id = visited.id and w.place = 'lent'
        ) as next
      )
      select e.id, e.kind, e.name, e.key, e.scope, ${toMicros('e.created_at')}::text,
        e.status = 'waiting' and e.attempt > 0 and (w.place is null or w.place in ('in', 'lent')),
        w.due_at < 'infinity' or w.listens, w.place, w.queue, w.lane,
        -- Whether its queue has room: it will be let in, or waits for its rate limit or for a process that can run it.
        w.place = 'queue' and coalesce(q.concurrency > q.held, true),
        array_to_string(w.awaits, ','), w.lender
      from (select id from visited limit ${MAX_VISITED}) as v
      join ${schema}.executions e on e.id = v.id
      left join ${schema}.wakeups w on w.execution_id = e.id
      left join ${schema}.queues q on q.name = w.queue
      where e.status <> 'done'`,

    /**
     * The ids of the executions after $1, in their order, that wait for others or did when they were last suspended, at
     * most $2. Safe: only reads.
     */
    listWaiting: `
      select w.execution_id from ${schema}.wakeups w
      where w.admitted and w.awaits is not null and w.execution_id > $1::uuid
      order by w.execution_id
      limit $2::int4`,

    /**
     * Lends the place of an execution that waits ($1) to one that it waits for and that has not been let in ($2).
     * Returns a row if it did. Safe: like each change of a place it is made, and checked, under the locks of the
     * queue's and the lane's row; the lender's row is locked as well, so that no worker leases it meanwhile.
     */
    lend: `
      with ${durableClock},
      holder as materialized (
        select e.id from ${schema}.executions e, clock
        where e.id = $1::uuid and e.status = 'waiting'
        for no key update of e
      ),
      door as materialized (
        select q.name, q.is_limited, coalesce(q.rate_limit > ${schema}.rate_used(q.rate, ${since('q')}), true) as may_begin
        from ${schema}.queues q
        where q.name = (select queue from ${schema}.wakeups where execution_id = $2::uuid) and exists (select from holder)
        for no key update
      ),
      lane_door as materialized (
        select l.key from ${schema}.lanes l
        where l.queue = (select name from door)
          and l.key = (select lane from ${schema}.wakeups where execution_id = $2::uuid)
        for no key update
      ),
      pair as materialized (
        select w.execution_id, w.place, w.queue, w.lane, w.due_at
        from ${schema}.wakeups w
        where w.execution_id in ($1::uuid, $2::uuid) and exists (select from door) and (select count(*) from lane_door) >= 0
        order by w.execution_id
        for no key update
      ),
      loan as materialized (
        select b.place as was, b.queue, b.lane
        from pair l cross join pair b cross join door cross join clock
        where l.execution_id = $1::uuid and b.execution_id = $2::uuid and l.place = 'in' and l.queue = b.queue
          and l.due_at > clock.now and door.may_begin
          and (b.place = 'queue' or b.place = 'key' and b.lane = l.lane)
      ),
      lent as (
        update ${schema}.wakeups set place = 'lent', admitted = false
        where execution_id = $1::uuid and exists (select from loan)
      ),
      borrowed as (
        update ${schema}.wakeups set place = 'in', admitted = true, lender = $1::uuid,
          lends_key = (select was = 'key' from loan)
        where execution_id = $2::uuid and exists (select from loan)
      ),
      left_lane as (
        update ${schema}.lanes l set waiting = l.waiting - 1, changed_at = clock.now
        from clock
        where l.queue = (select queue from loan where was = 'key') and l.key = (select lane from loan where was = 'key')
      ),
      left_queue as (
        update ${schema}.queues q
        set waiting = q.waiting - case when (select was from loan) = 'queue' then 1 else 0 end,
          rate = ${rateWith('1')}
        where q.name = (select queue from loan) and q.is_limited
      )
      select was from loan`,

    /**
     * Makes the wait of an execution ($1) end with an error ($2), since it is part of a circle. Returns a row if it
     * did. Safe: only while it waits, checked under its row's lock; what has woken it meanwhile comes first.
     */
    breakCircle: `
      with ${durableClock},
      held as materialized (
        select e.id from ${schema}.executions e, clock
        where e.id = $1::uuid and e.status = 'waiting'
        for no key update of e
      )
      update ${schema}.wakeups w set deadlock = $2::jsonb, due_at = clock.now
      from clock
      where w.execution_id = (select id from held) and w.due_at = 'infinity'
      returning w.execution_id`,
  }
}
