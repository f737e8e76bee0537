/** SQL fragments that let executions in and out of queues, as part of the statements that start and end them. */

import { sqlFragments } from './fragments.ts'

/** How many waiting executions are looked at for each that is let in: others may have been let in meanwhile. */
const CROWDING = 4

/** Stands for "no limit". */
const UNLIMITED = '2147483647'

/**
 * A queue has two gates. The first is its lane, if it limits the executions of each key: a row of pawl.lanes counts
 * how many of them are in and how many wait for it (place 'key'), in the order of their arrival. The second is the
 * queue itself: its row in pawl.queues counts how many are in (place 'in') and how many have passed the first gate
 * and wait for the second (place 'queue'), in the order of their priority. Each change of a place changes the counts
 * in the same commit, so that nothing has to be searched for or swept: whoever ends lets the next one in.
 *
 * Everything here is safe under concurrency because a place changes only while its queue's row (if the queue has
 * limits of its own) and its lane's row are locked, and what was read before is checked again under these locks. All
 * statements lock executions, queues, lanes and wakeups in this order, and rows of one table in the order of their
 * names, so that they cannot deadlock. Executions that were committed after the statement's snapshot are counted
 * but not seen; the statement then reports that more could be let in, and its caller sends `promote`.
 *
 * @param schema the schema's name, quoted as an identifier
 */
export function admissionFragments(schema: string) {
  const { milliseconds } = sqlFragments(schema)
  const now = '(select now from clock)'
  const since = (q: string) => `${now} - ${milliseconds(`${q}.rate_ms`)}`

  /** How many more the queue `q` can let in. Its own limits only, and without regard to who waits. */
  const room = (
    q: string,
    { freed = '0', begun = `${schema}.rate_used(${q}.rate, ${since(q)})` } = {},
  ) => `least(
          coalesce(${q}.concurrency - ${q}.held + ${freed}, ${UNLIMITED}),
          coalesce(${q}.rate_limit - ${begun}, ${UNLIMITED}))`

  /** Locks the rows of the queues that have limits of their own. */
  const lockedQueues = (names: string) => `
      locked_queues as materialized (
        select q.*, ${schema}.rate_used(q.rate, ${since('q')}) as begun
        from ${schema}.queues q
        where q.name = any (array(select queue from ${names})) and q.is_limited
        order by q.name
        for no key update
      ),
      -- The handlers that a live process can run: what nobody runs must not take up room.
      runnable as materialized (
        select distinct served.key as queue, handlers.handler
        from ${schema}.processes p
        cross join jsonb_each(p.queues) as served
        cross join jsonb_array_elements_text(served.value) as handlers (handler)
        where p.expires_at > ${now} and served.key = any (array(select name from locked_queues))
      )`

  /** The times at which the rate limit let executions in, with `n` more: at the time of the update, not of its wait. */
  const rateWith = (n: string) => `case when q.rate_limit is null then q.rate
            else ${schema}.rate_add(q.rate, ${schema}.now(), q.rate_ms, q.rate_limit, ${n}::int) end`

  return {
    room,
    since,
    rateWith,

    /**
     * The CTE `leaving` of executions whose ids a query returns. `after` is a CTE that must have run before. The place
     * of one that ends does not change meanwhile, unless it is part of a loan: that ends with either of its two
     * executions, which may end at once. So these are read again under the locks of their queues and lanes.
     */
    leavingOf: (ids: string, after = '') => `
      found_leaving as materialized (
        select w.execution_id as id, w.queue, w.lane, w.place, w.lender, w.lends_key,
          w.place <> 'in' or w.lender is not null as may_change
        from ${schema}.wakeups w
        where w.execution_id = any (array(${ids})) and w.place is not null
          ${after && `and (select count(*) from ${after}) >= 0`}
      ),
      loan_queues as materialized (
        select q.name from ${schema}.queues q
        where q.name = any (array(select queue from found_leaving where (select bool_or(may_change) from found_leaving)))
        order by q.name
        for no key update
      ),
      loan_lanes as materialized (
        select l.key
        from (
          select distinct queue, lane from found_leaving where queue in (select name from loan_queues)
          order by queue, lane
        ) as f
        cross join lateral (
          select l.key from ${schema}.lanes l where l.queue = f.queue and l.key = f.lane for no key update
        ) as l
      ),
      leaving as materialized (
        select id, queue, lane, place, lender, lends_key from found_leaving where not may_change
        union all
        select * from (
          select w.execution_id, w.queue, w.lane, w.place, w.lender, w.lends_key
          from ${schema}.wakeups w
          where w.execution_id = any (array(select id from found_leaving where may_change))
            and w.place is not null and (select count(*) from loan_lanes) >= 0
          order by w.execution_id
          for no key update
        ) as again
      )`,

    /** Whether a wakeup `w` is part of a loan with one that leaves. `leave` wakes it. */
    sharesWithLeaving: `(w.place = 'lent' and w.execution_id in (select lender from leaving)
          or w.lender is not null and w.lender in (select id from leaving))`,

    /** Assignments to a wakeup `w` that leaves its place if `condition` holds. */
    leftPlace: (condition: string) => `,
          place = case when ${condition} then null else w.place end,
          lender = case when ${condition} then null else w.lender end,
          lends_key = w.lends_key and not ${condition}`,

    /**
     * CTEs that give each execution that arrives its place: `placed` has the columns id and place. The CTE `arriving`
     * must have the columns id, queue, lane, handler, priority, arrival (their order), due (false: it waits for its
     * time) and counted (whether it is in the backlog already).
     */
    enter: `${lockedQueues('arriving')},
      rules as materialized (
        select name, per_key, case when waiting > 0 then 0 else ${room('q', { begun: 'q.begun' })} end as room
        from locked_queues q
        union all
        select q.name, q.per_key, null from ${schema}.queues q
        where q.name = any (array(select queue from arriving)) and not q.is_limited
      ),
      by_lane as materialized (
        select a.queue, a.lane, r.per_key, count(*)::int as n
        from arriving a join rules r on r.name = a.queue
        where a.due and a.lane is not null and r.per_key is not null
        group by a.queue, a.lane, r.per_key
      ),
      entered_lanes as (
        insert into ${schema}.lanes as l (queue, key, slots, held, waiting, changed_at)
        select queue, lane, per_key, least(n, per_key), greatest(n - per_key, 0), ${now}
        from by_lane
        order by queue, lane
        on conflict (queue, key) do update set
          slots = excluded.slots,
          held = l.held + case when l.waiting > 0 then 0
            else greatest(least(excluded.held + excluded.waiting, excluded.slots - l.held), 0) end,
          waiting = l.waiting + excluded.held + excluded.waiting - case when l.waiting > 0 then 0
            else greatest(least(excluded.held + excluded.waiting, excluded.slots - l.held), 0) end,
          changed_at = excluded.changed_at
        returning queue, key, waiting
      ),
      -- Whoever waits came before: as many as now wait in the lane are the last of those that arrive.
      ranked as (
        select a.*, r.name is not null as known, r.room,
          b.n is null or row_number() over (partition by a.queue, a.lane, a.due order by a.arrival, a.id)
            <= b.n - least(b.n, l.waiting) as passes,
          exists (select from runnable t where t.queue = a.queue and t.handler = a.handler) as runs
        from arriving a
        left join rules r on r.name = a.queue
        left join by_lane b on b.queue = a.queue and b.lane = a.lane
        left join entered_lanes l on l.queue = a.queue and l.key = a.lane
      ),
      placed as materialized (
        select id, queue, counted,
          case
            when not known then 'arriving'
            when not due then 'delayed'
            when not passes then 'key'
            when room is null or runs and turn <= room then 'in'
            else 'queue'
          end as place
        from (
          select *, row_number() over (
            partition by queue order by (due and passes and runs) desc, priority desc, arrival, id) as turn
          from ranked
        ) as in_order
      ),
      entered_queues as (
        update ${schema}.queues q
        set held = q.held + p.entered, waiting = q.waiting + p.waits, backlog = q.backlog + p.queued,
          rate = ${rateWith('p.entered')}
        from (
          select queue, count(*) filter (where place = 'in') as entered,
            count(*) filter (where place = 'queue') as waits,
            count(*) filter (where not counted) as queued
          from placed group by queue
        ) as p
        where q.name = any (array(select name from locked_queues)) and q.name = p.queue
      )`,

    /**
     * CTEs of a recursive query that take executions out of their places and let the next ones in. `leaving` must have the columns
     * id, queue, lane, place, lender and lends_key, of wakeups; a row with a null id lets in without taking out. The
     * result is in `advanced`: the queues and lanes, how many were let in, and whether more could be.
     */
    leave: `${lockedQueues('leaving')},
      -- Loans that come apart, of those that leave and of those that have borrowed from them: the lender, at last the
      -- nearest one that stays; whether the place in the lane comes from there; and whose place that is.
      loans (id, place, stays, lender, lends_key, slot_of) as (
        select id, place, false, lender, lends_key, case when lends_key then lender else id end
        from leaving where lender is not null
        union all
        select w.execution_id, w.place, true, w.lender, w.lends_key, case when w.lends_key then w.lender else w.execution_id end
        from ${schema}.wakeups w
        where w.lender = any (array(select id from leaving where place = 'lent'))
          and w.execution_id <> all (array(select id from leaving where id is not null))
        union all
        select r.id, r.place, r.stays, l.lender, r.lends_key and l.lends_key,
          case when r.slot_of = l.id and l.lends_key then l.lender else r.slot_of end
        from loans r join leaving l on l.id = r.lender
      ),
      ended_loans as materialized (
        select * from loans
        where lender is null or lender <> all (array(select id from leaving where id is not null))
      ),
      left_lanes as materialized (
        select queue, lane,
          count(*) filter (where place in ('in', 'queue', 'lent') and not (lender is not null and lends_key)
            and id <> all (array(select slot_of from ended_loans where stays)))::int as held,
          count(*) filter (where place = 'key')::int as waiting
        from leaving where lane is not null
        group by queue, lane order by queue, lane
      ),
      left_queues as materialized (
        select queue,
          count(*) filter (where place = 'in' and (lender is null
            or id = any (array(select id from ended_loans where lender is null))))::int as held,
          count(*) filter (where place = 'queue')::int as waiting,
          count(*) filter (where place in ('key', 'queue', 'delayed'))::int as backlog
        from leaving group by queue
      ),
      locked_lanes as materialized (
        select l.*
        from left_lanes f
        cross join lateral (
          select l.queue, l.key, l.slots, l.held - f.held as held, l.waiting - f.waiting as waiting
          from ${schema}.lanes l
          where l.queue = f.queue and l.key = f.lane and (select count(*) from locked_queues) >= 0
          for no key update
        ) as l
      ),
      next_in_lane as materialized (
        select w.*
        from locked_lanes l
        cross join lateral (
          select w.execution_id, w.queue, w.lane, w.handler, w.priority, w.due_at, w.enqueued_at
          from ${schema}.wakeups w
          where w.queue = l.queue and w.lane = l.key and w.place = 'key'
            and w.execution_id <> all (array(select id from leaving where id is not null))
          order by w.enqueued_at, w.execution_id
          limit greatest(least(l.slots::int8 - l.held, l.waiting), 0)
          for update
        ) as w
      ),
      rooms as materialized (
        select q.name, greatest(${room('q', { freed: 'f.held', begun: 'q.begun' })}, 0) as room, q.waiting - f.waiting as waiting
        from locked_queues q join left_queues f on f.queue = q.name
      ),
      next_in_queue as materialized (
        select w.*
        from rooms q
        cross join lateral (
          select w.execution_id, w.queue, w.lane, w.handler, w.priority, w.due_at, w.enqueued_at
          from (
            select found.execution_id, found.priority, found.due_at
            from runnable r
            cross join generate_series(0, 9) as priorities (priority)
            cross join lateral (
              select w.execution_id, w.priority, w.due_at
              from ${schema}.wakeups w
              where w.queue = r.queue and w.handler = r.handler and w.priority = priorities.priority
                and w.place = 'queue'
              order by w.due_at
              limit q.room::int8 * ${CROWDING}
            ) as found
            where r.queue = q.name
            order by found.priority desc, found.due_at
            limit q.room::int8 * ${CROWDING}
          ) as candidates
          join ${schema}.wakeups w on w.execution_id = candidates.execution_id
          where w.place = 'queue' and (select count(*) from locked_lanes) >= 0
            and w.execution_id <> all (array(select id from leaving where id is not null))
          order by candidates.priority desc, candidates.due_at
          limit q.room
          for update of w
        ) as w
        where q.room > 0 and q.waiting > 0
      ),
      next as materialized (
        select execution_id, queue, lane, was,
          case
            when room is null or runs and row_number() over (
              partition by queue order by runs desc, priority desc, due_at, enqueued_at, execution_id) <= room then 'in'
            else 'queue'
          end as place
        from (
          select n.*, 'queue' as was, q.room, true as runs from next_in_queue n join rooms q on q.name = n.queue
          union all
          select n.*, 'key', q.room,
            exists (select from runnable r where r.queue = n.queue and r.handler = n.handler)
          from next_in_lane n left join rooms q on q.name = n.queue
        ) as both_gates
      ),
      moved as (
        update ${schema}.wakeups w
        set place = next.place, admitted = next.place = 'in'
        from next
        where w.execution_id = any (array(select execution_id from next where place <> was))
          and w.execution_id = next.execution_id
      ),
      -- The lender gets its place back from one that ends. What one that ends has lent belongs to whoever has it, or to
      -- the one that had lent it before.
      settled as (
        select id, bool_or(returns) as returns, bool_or(stays) as stays, max(lender::text)::uuid as lender, bool_or(lends_key) as lends_key
        from (
          select lender as id, true as returns, false as stays, null::uuid as lender, false as lends_key
          from ended_loans where lender is not null and place = 'in' and not stays
          union all
          select id, false, true, lender, lends_key and lender is not null from ended_loans where stays
        ) as of_loans
        group by id
      ),
      resettled as (
        update ${schema}.wakeups w
        set place = case when s.returns then 'in' else w.place end, admitted = w.admitted or s.returns,
          lender = case when s.stays then s.lender else w.lender end,
          lends_key = case when s.stays then s.lends_key else w.lends_key end, due_at = least(w.due_at, ${now})
        from settled s
        where w.execution_id = any (array(select id from settled)) and w.execution_id = s.id
          and (w.place = 'lent' or not s.returns)
      ),
      advanced_lanes as (
        update ${schema}.lanes l
        set held = l.held - f.held + f.entered, waiting = l.waiting - f.waiting - f.entered, changed_at = ${now}
        from (
          select f.*, (select count(*) from next_in_lane n where n.queue = f.queue and n.lane = f.lane)::int as entered
          from left_lanes f
        ) as f
        where l.queue = any (array(select queue from locked_lanes)) and l.key = any (array(select key from locked_lanes))
          and l.queue = f.queue and l.key = f.lane
        returning l.queue, l.key, l.waiting > 0 and l.held < l.slots as more
      ),
      advanced_queues as (
        update ${schema}.queues q
        set held = q.held - f.held + n.entered, waiting = q.waiting - f.waiting - n.chosen + n.waits,
          backlog = q.backlog - f.backlog, rate = ${rateWith('n.entered')}
        from left_queues f
        cross join lateral (
          select count(*) filter (where place = 'in')::int as entered,
            count(*) filter (where place = 'in' and was = 'queue')::int as chosen,
            count(*) filter (where place = 'queue' and was = 'key')::int as waits
          from next where next.queue = f.queue
        ) as n
        where q.name = any (array(select name from rooms)) and q.name = f.queue
        returning q.name, q.waiting > 0 and ${room('q')} > 0 as more
      ),
      advanced as (
        select f.queue, null as lane, (select count(*) from next where queue = f.queue and place = 'in')::int as entered,
          coalesce(q.more, false) as more
        from left_queues f left join advanced_queues q on q.name = f.queue
        union all
        select queue, key, 0, true from advanced_lanes where more
      )`,
  }
}
