/** The statements that admit executions from a queue within its limits. */

import { sqlFragments } from './fragments.ts'

/** How many executions of a lane one admission blocks at most; also how many lanes stuckLanes returns at most. */
const MAX_BLOCKED = 1000

/** The SQL texts by name. They follow the rules of ExecutionStatements. */
export type QueueStatements = ReturnType<typeof queueStatements>

/**
 * The limits of a queue are enforced by slots: rows of pawl.slots that an execution holds from its admission until
 * it ends or is parked. The table's primary key (queue, lane, n) enforces the limit.
 *
 * In a queue with a limit per key, the executions of one key form a lane. The first of a lane are eligible; the
 * others are marked as blocked once an admission has read them, so that 10,000 executions of one key are not read
 * again and again to find those of another. When an execution of the lane ends, `unblockNext` unblocks the next.
 *
 * @param schema the schema's name, quoted as an identifier
 */
export function queueStatements(schema: string) {
  const { clock, milliseconds } = sqlFragments(schema)
  const { wakeups, slots } = { wakeups: `${schema}.wakeups w`, slots: `${schema}.slots s` }
  const now = '(select now from clock)'

  /** The free slots of 1 to `max` in a lane, ranked from 1; none if `max` is null. */
  const freeSlots = (max: string, lane: string) => `
        select series.n, row_number() over (order by series.n) as rank
        from generate_series(1, ${max}) as series (n)
        where not exists (select from held_${lane || 'all'} h where h.n = series.n)
        order by series.n
        limit $3::int4`
  /** The slots of a lane that are held at present. */
  const heldSlots = (lane: string) => `
        select s.n from ${slots}
        where s.queue = $1::text and s.lane = '${lane}' and s.held_until > ${now}`

  /** How many slots of a lane are held, or will be by executions that are due. An estimate; it enforces nothing. */
  const expectedSlots = (queue: string, lane: string, max: string) => `
        (select count(*) from ${slots}
          where s.queue = ${queue} and s.lane = 'key ' || ${lane} and s.held_until > ${now})
        + (select count(*) from (
            select from ${wakeups}
            where w.queue = ${queue} and not w.admitted and not w.blocked and w.lane = ${lane}
              and w.due_at <= ${now}
            limit ${max}) as due)`

  return {
    /** Inserts each queue's gate: the row that `admit` locks. Safe: the primary key lets one insert win. */
    createGates: `
      insert into ${schema}.slots (queue, lane, n, execution_id, held_until)
      select queue, 'gate', 0, gen_random_uuid(), 'infinity' from unnest($1::text[]) as t (queue)
      order by queue
      on conflict (queue, lane, n) do nothing`,

    /**
     * For each queue with waiting executions: the time until the first is due, in ms; zero or negative if it is due.
     * Safe: only reads.
     */
    nextDue: `
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
     * Admits due executions that get a slot of each kind that the queue limits. Safe: one statement per queue admits
     * at a time: it locks the queue's gate, and a concurrent one skips. A statement also skips if the gate's
     * stamp has changed since its snapshot, because another statement has admitted meanwhile. So no slot that looks
     * free in the snapshot is held, and an execution gets all of its slots or none. (If a slot was inserted by
     * hand, the primary key refuses the insert, the execution is not admitted, and `freeOrphanedSlots` frees its
     * other slots.) Slots that are freed meanwhile are not seen; the next statement uses them.
     *
     * Within a lane, only the first by arrival are admitted, as many as there are free slots. Others of the lane
     * are marked as blocked, but only if something is sure to end in the lane after this commit, and so unblocks
     * them: a held slot, whose row this statement has locked, so that it is freed later; or the first of the
     * lane, which is locked as well.
     *
     * The statement never waits: it skips rows that others have locked. And no other statement waits for the slots
     * that it inserts.
     *
     * $1 queue, $2 handlers, $3 how many to admit at most, $4 slots of the queue, $5 slots of each key, $6 slots of
     * the rate limit, $7 the rate limit's period in ms, $8 how many waiting executions to read.
     */
    admit: `
      with ${clock},
      held_all as materialized (${heldSlots('')}),
      held_rate as materialized (${heldSlots('rate')}),
      free_queue_slots as materialized (${freeSlots('$4::int4', '')}),
      free_rate_slots as materialized (${freeSlots('$6::int4', 'rate')}),
      admissible as materialized (
        select least($3::int8, case when $4::int4 is not null then (select count(*) from free_queue_slots) end,
          case when $6::int4 is not null then (select count(*) from free_rate_slots) end) as n
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
          limit (select case when n > 0 then $8::int4 else 0 end from admissible)
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
      free_lane_slots as materialized (
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
        limit (select n from admissible)
      ),
      acquired as (
        insert into ${schema}.slots as s (queue, lane, n, execution_id, held_until)
        select $1::text, wanted.lane, wanted.n, wanted.execution_id, wanted.until
        from (
          select '' as lane, free_queue_slots.n, chosen.execution_id, timestamptz 'infinity' as until
          from chosen join free_queue_slots using (rank)
          union all
          select 'rate', free_rate_slots.n, chosen.execution_id, ${now} + ${milliseconds('$7::int8')}
          from chosen join free_rate_slots using (rank)
          union all
          select 'key ' || chosen.lane, p.n, chosen.execution_id, 'infinity'
          from chosen join free_lane_slots p on p.lane = chosen.lane and p.rank = chosen.lane_rank
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
          -- Locked only after all slots are inserted, so that a statement that waits for this lock
          -- holds nothing that this one still waits for.
          and (select count(*) from acquired) >= 0
        for share skip locked
      ),
      to_block as materialized (
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
          limit ${MAX_BLOCKED}
          for update skip locked
        ) as found
      ),
      newly_blocked as (
        update ${wakeups} set blocked = true
        where w.execution_id = any (array(select execution_id from to_block))
        returning w.execution_id
      ),
      -- The first of a lane that got no slot of the queue stays eligible, so that the next admission reads it.
      unblocked as (
        update ${wakeups} set blocked = false
        where w.execution_id = any (array(select execution_id from candidates where blocked))
          and w.execution_id <> all (array(select execution_id from admitted))
      ),
      stamped as (
        update ${slots} set execution_id = gen_random_uuid()
        where s.queue = $1::text and s.lane = 'gate' and s.n = 0 and exists (select from gate)
      )
      select (select count(*) from admitted)::int4, (select count(*) from newly_blocked)::int4,
        exists (select from waiting), exists (select from gate),
        case when $6::int4 is not null and not exists (select from free_rate_slots) then (
          select extract(epoch from min(s.held_until) - ${now}) * 1000 from ${slots}
          where s.queue = $1::text and s.lane = 'rate' and s.n <= $6::int4 and s.held_until > ${now})
        end`,

    /**
     * Unblocks the first blocked executions of a lane. Safe: it admits nothing, it only makes them eligible. It is a
     * statement of its own, sent after the one that freed the slot has committed, so that its snapshot has all
     * executions that were blocked while that slot was held.
     */
    unblockNext: `
      with ${clock},
      input as (
        select distinct queue, lane, slots
        from unnest($1::text[], $2::text[], $3::int4[]) as t (queue, lane, slots)
      ),
      first as materialized (
        select found.execution_id
        from input
        cross join lateral (
          select w.execution_id from ${wakeups}
          where w.queue = input.queue and not w.admitted and w.blocked and w.lane = input.lane
          order by w.enqueued_at, w.execution_id
          limit greatest(input.slots - (${expectedSlots('input.queue', 'input.lane', 'input.slots')}), 0)
          for update skip locked
        ) as found
      )
      update ${wakeups} set blocked = false
      where w.execution_id = any (array(select execution_id from first))
      returning w.queue`,

    /** Lanes with blocked executions although fewer slots are in use than the lane has. Safe: only reads. */
    stuckLanes: `
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
      where lanes.lane is not null and ${expectedSlots('$1::text', 'lanes.lane', '$2::int4')} < $2::int4
      limit ${MAX_BLOCKED}`,

    /**
     * Deletes slots of executions that no longer exist, for example because they were deleted by hand. Safe: an
     * execution has an admitted wakeup from the commit that takes its slot to the commit that frees it.
     */
    freeOrphanedSlots: `
      delete from ${slots}
      where s.queue = any ($1::text[]) and s.lane <> 'gate' and s.held_until = 'infinity'
        and not exists (select from ${wakeups} where w.execution_id = s.execution_id and w.admitted)
      returning s.queue, s.lane`,

    /** How many executions wait in each queue, counted up to $2. Safe: only reads. */
    depth: `
      select input.n::int4, (
        select count(*) from (
          select from ${wakeups}
          where w.queue = input.queue and not w.admitted and w.due_at < 'infinity'
          limit input.max) as found)::int4
      from unnest($1::text[], $2::int4[]) with ordinality as input (queue, max, n)`,

    /** Counts a queue's waiting, delayed and running executions. Safe: only reads. */
    counts: `
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
