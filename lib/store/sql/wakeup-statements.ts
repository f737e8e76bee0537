/** The statements by which workers find and lease executions that are due. */

import { admissionFragments } from './admission-fragments.ts'
import { sqlFragments } from './fragments.ts'

/** How many executions that have begun have their turn for each one of the same handler that has not. */
const BEGUN_SHARE = 3

/** The SQL texts by name. They follow the rules of ExecutionStatements. */
export type WakeupStatements = ReturnType<typeof wakeupStatements>

/** @param schema the schema's name, quoted as an identifier */
export function wakeupStatements(schema: string) {
  const { clock, durableClock, incarnation, toMicros, milliseconds } = sqlFragments(schema)

  const { leave, leavingOf, leftPlace } = admissionFragments(schema)

  // The ranges of the index in which there are wakeups of the handlers $1, with one look-up each (a loose index scan):
  // most handlers use one priority of the ten.
  const range = (handler: string, condition: string) => `(
          select w.handler, w.priority, w.begun from ${schema}.wakeups w
          where w.admitted and w.handler = ${handler} and ${condition}
          order by w.handler desc, w.priority desc, w.begun desc
          limit 1)`
  const ranges = `ranges (handler, priority, begun) as (
        select range.* from unnest($1::text[]) as handlers (handler)
        cross join lateral ${range('handlers.handler', 'true')} as range
        union all
        select range.* from ranges r
        cross join lateral ${range('r.handler', '(w.priority, w.begun) < (r.priority, r.begun)')} as range
      )`
  // As arrays: the planner takes their rows for ten, and not for a hundred for each handler, which it would compile.
  const fewRanges = `(select array_agg(handler) as handlers, array_agg(priority) as priorities,
          array_agg(begun) as begun from ranges) as found_ranges
        cross join lateral unnest(handlers, priorities, found_ranges.begun) as`

  return {
    /**
     * Leases executions whose wakeup is due and that no live process is running. Returns also those whose process has
     * died, for `recordDeaths`, and those that have no attempts left, for `park`. $1 handlers, $2 limit, $3 this process, $4 lease in ms, $5 executions that this process is running,
     * $6 how many wakeups to look at, since other workers may have locked some of them.
     *
     * Safe: SKIP LOCKED gives each wakeup to one worker at a time. The execution is checked and taken over under
     * its row's lock, so that either a worker or a client's retry gets it. Statements that wake an execution lock
     * it before its wakeup; this one locks them in the opposite order, so it must not wait: it skips a locked
     * execution ('busy') and leaves it to the next call. Which owner is alive is read from the snapshot, because it
     * only decides who works.
     *
     * An execution that this process owns but is not running ('ours') was leased by a statement whose reply was
     * lost: it is returned again. A process with an expired heartbeat leases nothing until its next heartbeat,
     * because the others would take the executions over at once. A wakeup is rescheduled and not deleted, so that
     * another worker finds it if this one dies.
     *
     * Handlers take turns within a priority, and within a handler what has begun and what has not, so that a backlog
     * of one keeps no other waiting. Their order is found without locks, over more wakeups than are taken, because
     * other workers find the same ones and may lock them first; then as many are locked as are taken.
     */
    leaseDue: `
      with recursive ${durableClock},
      ${ranges},
      candidates as (
        select found.execution_id, r.priority, r.begun, found.due_at,
          (row_number() over (partition by r.handler, r.priority, r.begun order by found.due_at) - 1)
            / case when r.begun then ${BEGUN_SHARE} else 1 end as turn
        from ${fewRanges} r (handler, priority, begun)
        cross join lateral (
          select w.execution_id, w.due_at
          from ${schema}.wakeups w
          where w.admitted and w.handler = r.handler and w.priority = r.priority and w.begun = r.begun
            and w.due_at <= (select now from clock)
            and w.execution_id <> all ($5::uuid[])
          order by w.due_at
          limit $6::int4
        ) as found
        where (select p.expires_at > clock.now from ${schema}.processes p cross join clock where p.id = $3::uuid)
      ),
      chosen as materialized (
        select array(
          select execution_id from candidates
          order by priority desc, turn, begun desc, due_at
          limit $6::int4
        ) as ids
      ),
      due as materialized (
        -- The limit ends the locking: what comes behind it is not locked.
        select w.execution_id, w.max_attempts, w.begun or w.place is null as begun, w.deadlock
        from chosen
        cross join lateral unnest(chosen.ids) with ordinality as candidate (id, n)
        join ${schema}.wakeups w on w.execution_id = candidate.id
        where w.admitted and w.due_at <= (select now from clock)
        order by candidate.n
        limit $2::int4
        for update of w skip locked
      ),
      locked as (
        select e.id, e.status, e.owner, e.attempt, e.input is not null as wakes
        from ${schema}.executions e
        where e.id = any (array(select execution_id from due))
        for no key update skip locked
      ),
      judged as (
        select due.execution_id, due.max_attempts, due.begun, due.deadlock, p.expires_at,
          case
            when e.id is null or locked.status in ('done', 'unknown') or not locked.wakes then 'obsolete'
            when locked.id is null then 'busy'
            when locked.status = 'parked' then 'parked'
            when locked.status = 'running' and locked.owner = $3::uuid then 'ours'
            when locked.status = 'running' and coalesce(p.expires_at > clock.now, false) then 'running'
            when locked.status = 'running' then 'died'
            when locked.attempt >= due.max_attempts then 'exhausted'
            else 'free'
          end as verdict
        from due
        cross join clock
        left join ${schema}.executions e on e.id = due.execution_id
        left join locked on locked.id = due.execution_id
        left join ${schema}.processes p on p.id = locked.owner
      ),
      leased as (
        update ${schema}.executions e
        set status = 'running', owner = $3::uuid,
          attempt = e.attempt + case when judged.verdict = 'free' then 1 else 0 end
        from judged
        where e.id = any (array(select execution_id from judged where verdict in ('free', 'ours')))
          and e.id = judged.execution_id
        returning e.id, e.attempt, ${incarnation('e')}::text as incarnation, e.kind, e.scope, e.key, e.name,
          e.version, e.fingerprint, e.input, e.inbox, e.cancelling, ${toMicros('e.deadline')}::text as deadline,
          judged.max_attempts, e.queue is not null as queued, judged.begun, judged.deadlock::text as deadlock_text
      ),
      deleted_wakeups as (
        delete from ${schema}.wakeups
        where execution_id = any (array(select execution_id from judged where verdict = 'obsolete'))
      ),
      rescheduled as (
        update ${schema}.wakeups w
        set due_at = case
            when judged.verdict = 'parked' then 'infinity'
            -- When the owner's heartbeat expires, unless it is renewed.
            when judged.verdict = 'running' then judged.expires_at
            else clock.now + ${milliseconds('$4::int8')} end,
          begun = w.begun or judged.verdict in ('free', 'ours')
        from judged, clock
        where w.execution_id = any (array(
            select execution_id from judged where verdict in ('free', 'ours', 'parked', 'running')))
          and w.execution_id = judged.execution_id
      )
      select 'leased', id, attempt, incarnation, kind, scope, key, name, version, fingerprint, input, inbox,
        cancelling, deadline, max_attempts, ${toMicros('clock.now')}::text, queued,
        not begun, deadlock_text
      from leased cross join clock
      union all
      select 'cancelling', id, attempt, null, kind, scope, key, name, null, null, null, null, null, null, null, null, null, null, null
      from ${schema}.executions
      where cancelling and status = 'running' and owner = $3::uuid
      union all
      select verdict, execution_id, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null
      from judged where verdict in ('died', 'exhausted')
      union all
      select 'examined', null, count(*) filter (where verdict <> 'busy')::int4, null, null, null, null, null,
        null, null, null,
        -- With those that others have locked: all candidates, unless as many were found as are wanted.
        (count(*) filter (where verdict = 'busy')
          + case when count(*) < $2::int4 then (select cardinality(ids) from chosen) - count(*) else 0 end)::int4,
        null, null, null, null, null, null, null
      from judged`,

    /**
     * Notes that the processes which ran executions have died, and makes them due. An attempt that recorded something
     * got on: its death does not count as an attempt, and neither do the deaths before. Safe: under the row's lock,
     * and only if it is still so; locks executions before wakeups, in the order of their ids.
     */
    recordDeaths: `
      with ${durableClock},
      dead as materialized (
        select e.id, e.created_at, e.attempt
        from ${schema}.executions e, clock
        where e.id = any ($1::uuid[]) and e.status = 'running' and e.input is not null and not exists (
          select from ${schema}.processes p where p.id = e.owner and p.expires_at > clock.now)
        order by e.id
        for no key update of e
      ),
      seen as materialized (
        select dead.id, dead.attempt,
          -- Not "exists": the planner may evaluate that for all rows at once, with a scan of the whole table.
          case when (select true from ${schema}.steps s
            where s.execution_id = dead.id and s.life = dead.created_at and s.attempt = dead.attempt
            limit 1) then 0 else 1 end as counts,
          case when (select true from ${schema}.steps s
            where s.execution_id = dead.id and s.life = dead.created_at and s.attempt > w.last_death
            limit 1) then 0 else w.deaths end as before
        from dead join ${schema}.wakeups w on w.execution_id = dead.id
        offset 0
      ),
      released as (
        update ${schema}.executions e set status = 'released', owner = null
        where e.id = any (array(select id from seen))
      )
      update ${schema}.wakeups w
      set due_at = least(w.due_at, clock.now), deaths = seen.before + seen.counts, last_death = seen.attempt,
        max_attempts = w.max_attempts + w.deaths - seen.before + 1 - seen.counts
      from seen, clock
      where w.execution_id = any (array(select id from seen)) and w.execution_id = seen.id`,

    /**
     * Parks executions that have no attempts left, and gives their places in queues to the next ones. Safe: under the
     * row's lock, and only if it is still so; locks executions in the order of their ids, and wakeups last.
     */
    park: `
      with recursive ${durableClock},
      exhausted as materialized (
        select e.id from ${schema}.executions e join ${schema}.wakeups w on w.execution_id = e.id
        where e.id = any ($1::uuid[]) and e.status in ('waiting', 'released') and e.attempt >= w.max_attempts
        order by e.id
        for no key update of e
      ),
      parked as (
        update ${schema}.executions e set status = 'parked', owner = null
        from clock
        where e.id = any (array(select id from exhausted))
        returning e.id, e.kind, e.scope, e.key, e.attempt, e.name
      ),
      ${leavingOf('select id from parked')},
      ${leave},
      stopped as (
        update ${schema}.wakeups w
        set due_at = 'infinity', admitted = w.queue is null${leftPlace('true')}
        where w.execution_id = any (array(select id from parked))
      )
      select id, attempt, kind, scope, key, name, null::text, null::text, null::int4, null::bool from parked
      union all
      select null, null, null, null, null, null, queue, lane, entered, more from advanced`,

    /** The time until the next wakeup of these handlers, in ms; null if none has a due time. Safe: only reads. */
    nextDue: `
      with recursive ${clock},
      ${ranges}
      select extract(epoch from min(found.due_at) - (select now from clock)) * 1000
      from ${fewRanges} r (handler, priority, begun)
      cross join lateral (
        select w.due_at from ${schema}.wakeups w
        where w.admitted and w.handler = r.handler and w.priority = r.priority and w.begun = r.begun
          and w.due_at > (select now from clock)
        order by w.due_at limit 1
      ) as found
      where found.due_at < 'infinity'`,
  }
}
