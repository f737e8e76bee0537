import { fragments } from './fragments.ts'

/** How many of a lane are put aside at a time. */
const ASIDE = 1000

/** The SQL of queues. The rules of statements.ts hold here too. */
export type QueueStatements = ReturnType<typeof queueStatements>

/**
 * A queue's limits are slots: rows of pawl.slots that an execution holds from the moment it is let in until
 * it is final or parked. The table's primary key is what holds the limit.
 *
 * Of a queue with a limit for each key, those of one key are a lane. The first of a lane is due; the others
 * are blocked once they have been seen, so that 10,000 of one key are not read again and again to find
 * those of another. Whatever ends in a lane lets the next one go on (`promote`).
 *
 * @param schema the schema's name, quoted as an identifier
 */
export function queueStatements(schema: string) {
  const { clock, ms } = fragments(schema)
  const { wakeups, slots } = { wakeups: `${schema}.wakeups w`, slots: `${schema}.slots s` }
  const now = '(select now from clock)'

  /** Slots 1 to `most` of a lane that are free, by a rank from 1; none if `most` is null. */
  const free = (most: string, lane: string) => `
        select series.n, row_number() over (order by series.n) as rank
        from generate_series(1, ${most}) as series (n)
        where not exists (select from held_${lane || 'all'} h where h.n = series.n)
        order by series.n
        limit $3::int4`
  const held = (lane: string) => `
        select s.n from ${slots}
        where s.queue = $1::text and s.lane = '${lane}' and s.held_until > ${now}`

  /** How many slots of a lane are taken, or will be by those that are due; no limit, only a hint. */
  const taken = (queue: string, lane: string, most: string) => `
        (select count(*) from ${slots}
          where s.queue = ${queue} and s.lane = 'key ' || ${lane} and s.held_until > ${now})
        + (select count(*) from (
            select from ${wakeups}
            where w.queue = ${queue} and not w.admitted and not w.blocked and w.lane = ${lane}
              and w.due_at <= ${now}
            limit ${most}) as due)`

  return {
    /** What a queue needs before anything can be let in. Safe: the primary key makes one row of two. */
    open: `
      insert into ${schema}.slots (queue, lane, n, execution_id, held_until)
      select queue, 'gate', 0, gen_random_uuid(), 'infinity' from unnest($1::text[]) as t (queue)
      order by queue
      on conflict (queue, lane, n) do nothing`,

    /**
     * Of each queue and handler, in how many ms the first that waits is due: 0 and less if it is. Safe:
     * reads.
     */
    ready: `
      with ${clock}
      select input.queue, extract(epoch from min(found.due_at) - ${now}) * 1000
      from unnest($1::text[], $2::text[]) as input (queue, handler)
      cross join generate_series(0, 9) as priorities (priority)
      cross join lateral (
        select w.due_at from ${wakeups}
        where not w.admitted and not w.blocked and w.queue = input.queue
          and w.handler = input.handler and w.priority = priorities.priority
          and w.due_at < 'infinity'
        order by w.due_at limit 1
      ) as found
      group by input.queue`,

    /**
     * Lets in what is due and for what there are slots of every kind. Safe: one statement a queue lets in
     * at a time: it locks the queue's gate, and a concurrent one passes by. It also passes by if
     * the gate has another stamp than in its snapshot: somebody has let in meanwhile. So nobody has taken a
     * slot that this takes for free, and an execution gets all of its slots or none. (If one did, by hand:
     * the primary key refuses it, the execution is not let in, and `tidy` gives back the others.) What is
     * freed meanwhile is not seen, and taken by the next.
     *
     * Within a lane only the first ones by arrival are let in, as many as there are slots. Others of that
     * lane are blocked, if something is sure to end there after this has committed, and lets them go on: a
     * slot whose row is locked, so that whoever frees it does so later, or the first of the lane, which is
     * locked too.
     *
     * It waits for nobody: rows that others have locked are skipped, and no other statement waits for a
     * slot to be inserted.
     *
     * $1 queue, $2 handlers, $3 at most how many, $4 slots of the queue, $5 of each key, $6 of the rate, $7
     * the rate's period, $8 how many are read.
     */
    admit: `
      with ${clock},
      held_all as materialized (${held('')}),
      held_rate as materialized (${held('rate')}),
      spare as materialized (${free('$4::int4', '')}),
      tickets as materialized (${free('$6::int4', 'rate')}),
      places as materialized (
        select least($3::int8, case when $4::int4 is not null then (select count(*) from spare) end,
          case when $6::int4 is not null then (select count(*) from tickets) end) as n
      ),
      waiting as materialized (
        select found.execution_id, found.lane
        from unnest($2::text[]) as handlers (handler)
        cross join generate_series(9, 0, -1) as priorities (priority)
        cross join lateral (
          select w.execution_id, w.lane, w.due_at
          from ${wakeups}
          where not w.admitted and not w.blocked and w.queue = $1::text
            and w.handler = handlers.handler and w.priority = priorities.priority
            and w.due_at <= ${now}
          order by w.due_at
          limit (select case when n > 0 then $8::int4 else 0 end from places)
        ) as found
        order by priorities.priority desc, found.due_at
        limit $8::int4
      ),
      seen as materialized (
        select s.execution_id as stamp from ${slots}
        where s.queue = $1::text and s.lane = 'gate' and s.n = 0
      ),
      gate as materialized (
        select s.n from ${slots}, seen
        where s.queue = $1::text and s.lane = 'gate' and s.n = 0 and s.execution_id = seen.stamp
          and exists (select from waiting)
        for update of s skip locked
      ),
      lanes as materialized (
        select lane, array(
          select s.n from ${slots}
          where s.queue = $1::text and s.lane = 'key ' || found.lane and s.held_until > ${now}
        ) as held
        from (select distinct lane from waiting where lane is not null) as found
        where $5::int4 is not null and exists (select from gate)
      ),
      places_in_lanes as materialized (
        select lanes.lane, series.n,
          row_number() over (partition by lanes.lane order by series.n) as rank
        from lanes cross join generate_series(1, $5::int4) as series (n)
        where series.n <> all (lanes.held)
      ),
      first as materialized (
        select lanes.lane, found.execution_id, found.rank
        from lanes
        cross join lateral (
          select both_kinds.execution_id,
            row_number() over (order by both_kinds.enqueued_at, both_kinds.execution_id) as rank
          from (
            (select w.execution_id, w.enqueued_at from ${wakeups}
              where w.queue = $1::text and not w.admitted and w.blocked and w.lane = lanes.lane
              order by w.enqueued_at, w.execution_id limit $5::int4)
            union all
            (select w.execution_id, w.enqueued_at from ${wakeups}
              where w.queue = $1::text and not w.admitted and not w.blocked and w.lane = lanes.lane
                and w.due_at <= ${now}
              order by w.enqueued_at, w.execution_id limit $5::int4)
          ) as both_kinds
        ) as found
        where found.rank <= $5::int4 - cardinality(lanes.held)
      ),
      candidates as materialized (
        select w.execution_id, w.handler, w.lane, w.priority, w.due_at, w.enqueued_at, w.blocked
        from ${wakeups}
        where w.execution_id = any (array(
            select execution_id from waiting
            where (lane is null or $5::int4 is null) and exists (select from gate)
            union all select execution_id from first))
          and not w.admitted and (w.blocked or w.due_at <= ${now})
        for update skip locked
      ),
      chosen as materialized (
        select c.execution_id, c.lane, first.rank as lane_rank,
          row_number() over (
            order by c.priority desc, c.due_at, c.enqueued_at, c.execution_id) as rank
        from candidates c left join first using (execution_id)
        where c.handler = any ($2::text[])
        order by c.priority desc, c.due_at, c.enqueued_at, c.execution_id
        limit (select n from places)
      ),
      acquired as (
        insert into ${schema}.slots as s (queue, lane, n, execution_id, held_until)
        select $1::text, wanted.lane, wanted.n, wanted.execution_id, wanted.until
        from (
          select '' as lane, spare.n, chosen.execution_id, timestamptz 'infinity' as until
          from chosen join spare using (rank)
          union all
          select 'rate', tickets.n, chosen.execution_id, ${now} + ${ms('$7::int8')}
          from chosen join tickets using (rank)
          union all
          select 'key ' || chosen.lane, p.n, chosen.execution_id, 'infinity'
          from chosen join places_in_lanes p on p.lane = chosen.lane and p.rank = chosen.lane_rank
        ) as wanted
        order by wanted.lane, wanted.n
        on conflict (queue, lane, n) do update
          set execution_id = excluded.execution_id, held_until = excluded.held_until
          where s.held_until <= ${now}
        returning s.execution_id
      ),
      admitted as (
        update ${wakeups} set admitted = true, blocked = false
        where w.execution_id = any (array(
          select chosen.execution_id from chosen
          where (select count(*) from acquired a where a.execution_id = chosen.execution_id)
            = case when $4::int4 is null then 0 else 1 end + case when $6::int4 is null then 0 else 1 end
              + case when chosen.lane is null or $5::int4 is null then 0 else 1 end))
        returning w.execution_id
      ),
      occupied as materialized (
        select substr(s.lane, 5) as lane from ${slots}
        where s.queue = $1::text and s.lane = any (array(select 'key ' || lane from lanes))
          and s.held_until > ${now}
          -- Locked only once all slots are inserted: whoever waits for this lock keeps nobody waiting.
          and (select count(*) from acquired) >= 0
        for share skip locked
      ),
      crowd as materialized (
        select found.execution_id
        from (
          select lane from occupied
          union select lane from candidates where lane is not null and $5::int4 is not null
        ) as pinned
        cross join lateral (
          select w.execution_id from ${wakeups}
          where w.queue = $1::text and not w.admitted and not w.blocked and w.lane = pinned.lane
            and w.due_at <= ${now}
            and w.execution_id <> all (array(select execution_id from first))
          order by w.enqueued_at, w.execution_id
          limit ${ASIDE}
          for update skip locked
        ) as found
      ),
      aside as (
        update ${wakeups} set blocked = true
        where w.execution_id = any (array(select execution_id from crowd))
        returning w.execution_id
      ),
      -- The first of a lane, for which there was no slot of the queue: it is the one to be found.
      found as (
        update ${wakeups} set blocked = false
        where w.execution_id = any (array(select execution_id from candidates where blocked))
          and w.execution_id <> all (array(select execution_id from admitted))
      ),
      stamped as (
        update ${slots} set execution_id = gen_random_uuid()
        where s.queue = $1::text and s.lane = 'gate' and s.n = 0 and exists (select from gate)
      )
      select (select count(*) from admitted)::int4, (select count(*) from aside)::int4,
        exists (select from waiting), exists (select from gate),
        case when $6::int4 is not null and not exists (select from tickets) then (
          select extract(epoch from min(s.held_until) - ${now}) * 1000 from ${slots}
          where s.queue = $1::text and s.lane = 'rate' and s.n <= $6::int4 and s.held_until > ${now})
        end`,

    /**
     * Lets the first of those that are blocked in a lane go on. Safe: it lets nobody in, it only makes
     * them due. Sent in a statement of its own, after the one that freed the lane has committed: its
     * snapshot has whatever was blocked over a slot that is free now.
     */
    promote: `
      with ${clock},
      input as (
        select distinct queue, lane, places
        from unnest($1::text[], $2::text[], $3::int4[]) as t (queue, lane, places)
      ),
      first as materialized (
        select found.execution_id
        from input
        cross join lateral (
          select w.execution_id from ${wakeups}
          where w.queue = input.queue and not w.admitted and w.blocked and w.lane = input.lane
          order by w.enqueued_at, w.execution_id
          limit greatest(input.places - (${taken('input.queue', 'input.lane', 'input.places')}), 0)
          for update skip locked
        ) as found
      )
      update ${wakeups} set blocked = false
      where w.execution_id = any (array(select execution_id from first))
      returning w.queue`,

    /** Lanes in which some are blocked, and nothing is that would let them go on. Safe: reads. */
    stuck: `
      with recursive ${clock},
      lanes (lane) as (
        (select w.lane from ${wakeups}
          where w.queue = $1::text and not w.admitted and w.blocked order by w.lane limit 1)
        union all
        select (select w.lane from ${wakeups}
          where w.queue = $1::text and not w.admitted and w.blocked and w.lane > lanes.lane
          order by w.lane limit 1)
        from lanes where lanes.lane is not null
      )
      select lanes.lane from lanes
      where lanes.lane is not null and ${taken('$1::text', 'lanes.lane', '$2::int4')} < $2::int4
      limit ${ASIDE}`,

    /**
     * Frees slots whose execution is gone: deleted by hand, say. Safe: whoever holds a slot has a wakeup
     * that is admitted, from the commit that took the slot to the one that frees it.
     */
    tidy: `
      delete from ${slots}
      where s.queue = any ($1::text[]) and s.lane <> 'gate' and s.held_until = 'infinity'
        and not exists (select from ${wakeups} where w.execution_id = s.execution_id and w.admitted)
      returning s.queue, s.lane`,

    /** How many wait in each queue, counted up to $2. Safe: reads. */
    depth: `
      select input.n::int4, (
        select count(*) from (
          select from ${wakeups}
          where w.queue = input.queue and not w.admitted and w.due_at < 'infinity'
          limit input.most) as found)::int4
      from unnest($1::text[], $2::int4[]) with ordinality as input (queue, most, n)`,

    /** How a queue stands. Safe: reads. */
    backlog: `
      with ${clock},
      waiting as (
        select count(*) as n, min(w.enqueued_at) as oldest from ${wakeups}
        where w.queue = $1::text and not w.admitted and (w.blocked or w.due_at <= ${now})
      )
      select waiting.n::int4,
        (select count(*) from ${wakeups} where w.queue = $1::text and not w.admitted
          and not w.blocked and w.due_at > ${now} and w.due_at < 'infinity')::int4,
        (select count(*) from ${wakeups} where w.queue = $1::text and w.admitted)::int4,
        (extract(epoch from waiting.oldest) * 1000)::float8
      from waiting`,
  }
}
