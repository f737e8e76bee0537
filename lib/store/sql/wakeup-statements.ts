/** The statements by which workers find and lease executions that are due. */

import { sqlFragments } from './fragments.ts'

/** The SQL texts by name. They follow the rules of ExecutionStatements. */
export type WakeupStatements = ReturnType<typeof wakeupStatements>

/** @param schema the schema's name, quoted as an identifier */
export function wakeupStatements(schema: string) {
  const { clock, durableClock, incarnation, toMicros, milliseconds } = sqlFragments(schema)

  return {
    /**
     * Leases executions whose wakeup is due and that no live process is running; parks those that have no attempts
     * left. $1 handlers, $2 limit, $3 this process, $4 lease in ms, $5 executions that this process is running.
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
     * another worker finds it if this one dies. The query reads one range of the index for each handler and
     * priority, so that a backlog of one is not read to find another.
     */
    leaseDue: `
      with ${durableClock},
      due as (
        select found.execution_id, found.max_attempts
        from unnest($1::text[]) as handlers (handler)
        cross join generate_series(9, 0, -1) as priorities (priority)
        cross join lateral (
          select w.execution_id, w.max_attempts
          from ${schema}.wakeups w
          where w.admitted and w.handler = handlers.handler and w.priority = priorities.priority
            and w.due_at <= (select now from clock)
            and w.execution_id <> all ($5::uuid[])
          order by w.due_at
          limit $2::int4
          for update skip locked
        ) as found
        where (select p.expires_at > clock.now from ${schema}.processes p cross join clock where p.id = $3::uuid)
        order by priorities.priority desc
        limit $2::int4
      ),
      locked as (
        select e.id, e.status, e.owner, e.attempt, e.input is not null as wakes
        from ${schema}.executions e
        where e.id = any (array(select execution_id from due))
        for no key update skip locked
      ),
      judged as (
        select due.execution_id, due.max_attempts, p.expires_at,
          case
            when e.id is null or locked.status in ('done', 'unknown') or not locked.wakes then 'obsolete'
            when locked.id is null then 'busy'
            when locked.status = 'parked' then 'parked'
            when locked.status = 'running' and locked.owner = $3::uuid then 'ours'
            when locked.status = 'running' and coalesce(p.expires_at > clock.now, false) then 'running'
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
          judged.max_attempts
      ),
      parked as (
        update ${schema}.executions e
        set status = 'parked', owner = null
        where e.id = any (array(select execution_id from judged where verdict = 'exhausted'))
        returning e.id, e.kind, e.scope, e.key, e.attempt, e.name
      ),
      deleted_wakeups as (
        delete from ${schema}.wakeups
        where execution_id = any (array(select execution_id from judged where verdict = 'obsolete'))
      ),
      rescheduled as (
        update ${schema}.wakeups w
        set due_at = case
            when judged.verdict in ('exhausted', 'parked') then 'infinity'
            -- When the owner's heartbeat expires, unless it is renewed.
            when judged.verdict = 'running' then judged.expires_at
            else clock.now + ${milliseconds('$4::int8')} end,
          admitted = judged.verdict not in ('exhausted', 'parked') or w.queue is null
        from judged, clock
        where w.execution_id = any (array(
            select execution_id from judged where verdict not in ('obsolete', 'busy')))
          and w.execution_id = judged.execution_id
      ),
      freed as (
        delete from ${schema}.slots where execution_id = any (array(select id from parked))
      )
      select 'leased', id, attempt, incarnation, kind, scope, key, name, version, fingerprint, input, inbox,
        cancelling, deadline, max_attempts, ${toMicros('clock.now')}::text
      from leased cross join clock
      union all
      select 'parked', id, attempt, null, kind, scope, key, name, null, null, null, null, null, null, null, null
      from parked
      union all
      select 'cancelling', id, attempt, null, kind, scope, key, name, null, null, null, null, null, null, null, null
      from ${schema}.executions
      where cancelling and status = 'running' and owner = $3::uuid
      union all
      select 'examined', null, count(*) filter (where verdict <> 'busy')::int4, null, null, null, null, null,
        null, null, null, count(*) filter (where verdict = 'busy')::int4, null, null, null, null
      from judged`,

    /** The time until the next wakeup of these handlers, in ms; null if none has a due time. Safe: only reads. */
    nextDue: `
      with ${clock}
      select extract(epoch from min(found.due_at) - (select now from clock)) * 1000
      from unnest($1::text[]) as handlers (handler)
      cross join generate_series(0, 9) as priorities (priority)
      cross join lateral (
        select w.due_at from ${schema}.wakeups w
        where w.admitted and w.handler = handlers.handler and w.priority = priorities.priority
          and w.due_at > (select now from clock)
        order by w.due_at limit 1
      ) as found
      where found.due_at < 'infinity'`,
  }
}
