/** The statements of queues: their limits, what arrives in them, and their counts. */

import { admissionFragments } from './admission-fragments.ts'
import { sqlFragments } from './fragments.ts'

/** The SQL texts by name. They follow the rules of ExecutionStatements. */
export type QueueStatements = ReturnType<typeof queueStatements>

/** @param schema the schema's name, quoted as an identifier */
export function queueStatements(schema: string) {
  const { clock, durableClock, milliseconds } = sqlFragments(schema)
  const { enter, leave, room, since } = admissionFragments(schema)
  const now = '(select now from clock)'

  const placesOf = (place: string, condition: string) => `
          select lane, ${place} as place, lender, lends_key, begun from ${schema}.wakeups where queue = $1::text and ${condition}`

  return {
    /**
     * Stores the limits of queues; of those that are stored already only if $7 is true. Safe: the last one wins, row by
     * row in the order of their names. The counts of a queue that had no limits were not kept: `mend` sets them.
     */
    defineQueues: `
      insert into ${schema}.queues as q (name, concurrency, per_key, rate_limit, rate_ms, max_depth)
      select * from unnest($1::text[], $2::int4[], $3::int4[], $4::int4[], $5::int8[], $6::int4[])
        as t (name, concurrency, per_key, rate_limit, rate_ms, max_depth)
      order by name
      on conflict (name) do update set
        concurrency = excluded.concurrency, per_key = excluded.per_key, rate_limit = excluded.rate_limit,
        rate_ms = excluded.rate_ms, max_depth = excluded.max_depth, checked_at = '-infinity'
      where $7::bool and (q.concurrency, q.per_key, q.rate_limit, q.rate_ms, q.max_depth)
        is distinct from (excluded.concurrency, excluded.per_key, excluded.rate_limit, excluded.rate_ms, excluded.max_depth)`,

    /**
     * For each queue: the time until the next execution arrives, in ms; whether waiting ones can be let in; and the
     * time until its rate limit lets in more, in ms. Safe: only reads.
     */
    look: `
      with ${clock}
      select q.name,
        (select extract(epoch from min(found.due_at) - ${now}) * 1000
          from unnest($1::text[], $2::text[]) as input (queue, handler)
          cross join lateral (
            select w.due_at from ${schema}.wakeups w
            where w.queue = input.queue and w.handler = input.handler and w.place in ('arriving', 'delayed')
            order by w.due_at limit 1
          ) as found
          where input.queue = q.name),
        q.waiting > 0 and ${room('q')} > 0,
        case when q.waiting > 0 and q.rate_limit - ${schema}.rate_used(q.rate, ${since('q')}) <= 0 then (
          select min((entry ->> 0)::float8) + q.rate_ms - extract(epoch from ${now}) * 1000
          from jsonb_array_elements(q.rate) as entry
          where (entry ->> 0)::float8 > extract(epoch from ${since('q')}) * 1000)
        end
      from ${schema}.queues q
      where q.name = any ($1::text[])`,

    /**
     * Lets in, or sets in line, the executions of a queue that were delayed or were started in a transaction of the
     * app. Safe: only one of several statements at a time, because each locks the queue's row first, and checks under
     * this lock that they are still on their way. $1 queue, $2 handlers, $3 how many at most.
     */
    arrive: `
      with ${durableClock},
      door as materialized (select q.name from ${schema}.queues q where q.name = $1::text for no key update),
      arriving as materialized (
        select w.execution_id as id, w.queue, w.lane, w.handler, w.priority, w.place = 'delayed' as counted,
          true as due, row_number() over (order by w.enqueued_at, w.execution_id) as arrival
        from (
          select w.* from ${schema}.wakeups w, door
          where w.execution_id = any (array(
              select found.execution_id
              from unnest($2::text[]) as handlers (handler)
              cross join lateral (
                select w.execution_id, w.due_at from ${schema}.wakeups w
                where w.queue = $1::text and w.handler = handlers.handler and w.place in ('arriving', 'delayed')
                  and w.due_at <= ${now}
                order by w.due_at limit $3::int4
              ) as found
              order by found.due_at limit $3::int4))
            and w.place in ('arriving', 'delayed')
          for update of w
        ) as w
      ),
      ${enter},
      moved as (
        update ${schema}.wakeups w
        set place = placed.place, admitted = placed.place = 'in'
        from placed
        where w.execution_id = any (array(select id from placed)) and w.execution_id = placed.id
      )
      select placed.id, e.waiters is not null and placed.place in ('key', 'queue')
      from placed left join ${schema}.executions e on e.id = placed.id`,

    /**
     * Lets in as many of each queue ($1), and of a lane of it ($2; null for none), as there is room for. Safe: see
     * admissionFragments.
     */
    promote: `
      with recursive ${durableClock},
      leaving (id, queue, lane, place, lender, lends_key) as materialized (
        select null::uuid, queue, lane, null::text, null::uuid, false
        from (select distinct queue, lane from unnest($1::text[], $2::text[]) as t (queue, lane)) as input
      ),
      ${leave}
      select sum(entered)::int4, bool_or(more) from advanced`,

    /** Claims the check of queues that have not been checked for $2 ms. Safe: the row's lock lets one process win. */
    claimCheck: `
      with ${clock}
      update ${schema}.queues q set checked_at = ${now}
      where q.name = any (array(
        select name from ${schema}.queues
        where name = any ($1::text[]) and checked_at <= ${now} - ${milliseconds('$2::int8')}
        order by name for no key update skip locked))
      returning q.name`,

    /**
     * Compares the counts of a queue ($1) and of its lanes with its executions, corrects them, and deletes lanes in
     * which nothing has happened for a minute. Safe: counts and places change in the same commits, so that a
     * difference in one snapshot is one at any later time, until somebody corrects it; whoever has claimed the check
     * is the only one. Returns what was corrected, and the lanes that have room although somebody waits.
     */
    mend: `
      with ${clock},
      counted as materialized (
        select w.lane,
          count(*) filter (where w.place in ('in', 'queue', 'lent') and not (w.lender is not null and w.lends_key))::int as key_held,
          count(*) filter (where w.place = 'key')::int as key_waiting,
          count(*) filter (where w.place in ('in', 'lent') and w.lender is null)::int as held,
          count(*) filter (where w.place = 'queue')::int as waiting,
          count(*) filter (where w.place in ('key', 'queue', 'delayed') or w.place = 'in' and not w.begun)::int as backlog
        from (
          -- Each part is read by an index of its own.
          ${placesOf("'key'", "place = 'key'")}
          union all ${placesOf("'queue'", "place = 'queue'")}
          union all ${placesOf('place', "place in ('in', 'lent')")}
          union all ${placesOf('place', "place in ('arriving', 'delayed')")}
        ) as w
        group by w.lane
      ),
      queue as materialized (
        select q.name, q.per_key, q.is_limited, t.held - q.held as held, t.waiting - q.waiting as waiting,
          t.backlog - q.backlog as backlog
        from ${schema}.queues q
        cross join (
          select coalesce(sum(held), 0) as held, coalesce(sum(waiting), 0) as waiting, coalesce(sum(backlog), 0) as backlog
          from counted
        ) as t
        where q.name = $1::text
      ),
      queue_mended as (
        update ${schema}.queues q
        set held = q.held + d.held, waiting = q.waiting + d.waiting, backlog = q.backlog + d.backlog
        from queue d
        where q.name = d.name and d.is_limited and (d.held <> 0 or d.waiting <> 0 or d.backlog <> 0)
        returning q.name, d.held, d.waiting, d.backlog
      ),
      seen as materialized (
        select l.key, coalesce(c.key_held, 0) - l.held as held, coalesce(c.key_waiting, 0) - l.waiting as waiting,
          coalesce(q.per_key, 2147483647) as slots, l.slots as seen_slots,
          -- A queue that has no limit for each key any more needs no lanes, once nobody waits in them.
          coalesce(c.key_waiting, 0) = 0 and l.waiting = 0 and (q.per_key is null or
            coalesce(c.key_held, 0) = 0 and l.held = 0 and l.changed_at < ${now} - interval '1 minute') as idle
        from ${schema}.lanes l
        cross join queue q
        left join counted c on c.lane = l.key
        where l.queue = $1::text
      ),
      lanes_mended as (
        update ${schema}.lanes l
        set held = l.held + s.held, waiting = l.waiting + s.waiting, slots = s.slots
        from seen s
        where l.queue = $1::text and l.key = s.key and not s.idle
          and (s.held <> 0 or s.waiting <> 0 or s.slots <> s.seen_slots)
        returning l.key, s.held, s.waiting
      ),
      lanes_added as (
        insert into ${schema}.lanes (queue, key, slots, held, waiting, changed_at)
        select q.name, c.lane, q.per_key, c.key_held, c.key_waiting, ${now}
        from counted c cross join queue q
        where q.per_key is not null and c.lane is not null and (c.key_held > 0 or c.key_waiting > 0)
          and not exists (select from seen s where s.key = c.lane)
        on conflict (queue, key) do nothing
        returning key, held, waiting
      ),
      deleted as (
        delete from ${schema}.lanes l
        where l.queue = $1::text and l.key = any (array(
          select d.key from ${schema}.lanes d join seen s on s.key = d.key
          where d.queue = $1::text and s.idle and d.waiting = 0
            and (d.held = 0 or (select per_key is null from queue))
          for update of d skip locked))
      )
      select 'queue', null, held::int4, waiting::int4 from queue_mended where held <> 0 or waiting <> 0
      union all
      select 'lane', key, held, waiting from lanes_mended where held <> 0 or waiting <> 0
      union all
      select 'lane', key, held, waiting from lanes_added
      union all
      select 'open', key, null, null from seen join counted c on c.lane = seen.key
      where c.key_waiting > 0 and c.key_held < seen.slots`,

    /**
     * Counts executions of a queue ($1) that have begun ($2). Safe: a difference, so that the order does not matter. It is not in
     * the commit that leases them, which has locked their wakeups; if it is lost, `mend` corrects the count.
     */
    begin: `update ${schema}.queues set backlog = backlog - $2::int4 where name = $1::text and is_limited`,

    /**
     * The other queues ($2 are known) in which executions of the handlers $1 wait, since their workflows were in another
     * queue when they were started. Safe: only reads.
     */
    formerQueues: `
      select q.name, handlers.handler
      from ${schema}.queues q
      cross join unnest($1::text[]) as handlers (handler)
      where q.name <> all ($2::text[]) and (
        exists (select from ${schema}.wakeups w
          where w.queue = q.name and w.handler = handlers.handler and w.place = 'queue')
        or exists (select from ${schema}.wakeups w
          where w.queue = q.name and w.handler = handlers.handler and w.place in ('arriving', 'delayed'))
        or exists (select from ${schema}.wakeups w
          where w.queue = q.name and w.handler = handlers.handler and w.place = 'key'))`,

    /** How many executions wait in each queue. Safe: only reads. */
    depth: `
      select input.n::int4, greatest(coalesce(q.backlog, 0), 0)
      from unnest($1::text[]) with ordinality as input (queue, n)
      left join ${schema}.queues q on q.name = input.queue
      order by input.n`,

    /** Counts a queue's waiting, delayed and running executions. Safe: only reads. */
    counts: `
      select backlog::int4, delayed::int4, running::int4, (extract(epoch from oldest) * 1000)::float8
      from ${schema}.queue_log where queue = $1::text`,
  }
}
