import { fragments } from './fragments.ts'

/** The SQL of executions that go on by themselves. The rules of statements.ts hold here too. */
export type WakeupStatements = ReturnType<typeof wakeupStatements>

/** @param schema the schema's name, quoted as an identifier */
export function wakeupStatements(schema: string) {
  const { clock, born, micros, ms } = fragments(schema)

  return {
    /**
     * Takes executions whose wakeup is due and that nobody is working on. Safe: SKIP LOCKED gives each
     * wakeup to one worker at a time; taking the execution is a compare-and-set on its attempt under the
     * row's lock, so that of a worker and a client's retry one gets it. Who is alive is read from the
     * snapshot, which decides only who works. What this process owns and does not work on ($5) it has taken
     * and not been told of, since the reply was lost: it is told again. A wakeup is moved on and not
     * deleted, so that it is still there if this worker dies too. One range of the index for each handler
     * and priority, so that a backlog of one is not read to find another.
     */
    takeDue: `
      with ${clock},
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
        order by priorities.priority desc
        limit $2::int4
      ),
      judged as (
        select due.execution_id, due.max_attempts, e.attempt, p.expires_at,
          case
            when e.id is null or e.status in ('done', 'unknown') or e.input is null then 'gone'
            when e.status = 'running' and e.owner = $3::uuid then 'ours'
            when e.status = 'running' and coalesce(p.expires_at > clock.now, false) then 'running'
            when e.attempt >= due.max_attempts then 'spent'
            else 'free'
          end as verdict
        from due
        cross join clock
        left join ${schema}.executions e on e.id = due.execution_id
        left join ${schema}.processes p on p.id = e.owner
      ),
      taken as (
        update ${schema}.executions e
        set status = 'running', owner = $3::uuid,
          attempt = e.attempt + case when judged.verdict = 'free' then 1 else 0 end
        from judged
        where e.id = judged.execution_id and judged.verdict in ('free', 'ours')
          and e.attempt = judged.attempt and e.status in ('running', 'released', 'waiting')
        returning e.id, e.attempt, ${born('e')}::text as born, e.kind, e.scope, e.key, e.name,
          e.version, e.fingerprint, e.input, e.inbox, e.cancelling, ${micros('e.deadline')}::text as deadline,
          judged.max_attempts
      ),
      parked as (
        update ${schema}.executions e
        set status = 'parked', owner = null
        from judged
        where e.id = judged.execution_id and judged.verdict = 'spent'
          and e.attempt = judged.attempt and e.status in ('running', 'released', 'waiting')
        returning e.id, e.kind, e.scope, e.key, e.attempt, e.name
      ),
      settled as (
        delete from ${schema}.wakeups
        where execution_id = any (array(select execution_id from judged where verdict = 'gone'))
      ),
      moved as (
        update ${schema}.wakeups w
        set due_at = case judged.verdict when 'spent' then 'infinity'
            -- When its owner is dead unless it says otherwise.
            when 'running' then judged.expires_at
            else clock.now + ${ms('$4::int8')} end,
          admitted = judged.verdict <> 'spent' or w.queue is null
        from judged, clock
        where w.execution_id = any (array(select execution_id from judged where verdict <> 'gone'))
          and w.execution_id = judged.execution_id
      ),
      freed as (
        delete from ${schema}.slots where execution_id = any (array(select id from parked))
      )
      select 'taken', id, attempt, born, kind, scope, key, name, version, fingerprint, input, inbox,
        cancelling, deadline, max_attempts, ${micros('clock.now')}::text
      from taken cross join clock
      union all
      select 'parked', id, attempt, null, kind, scope, key, name, null, null, null, null, null, null, null, null
      from parked
      union all
      select 'cancelling', id, attempt, null, kind, scope, key, name, null, null, null, null, null, null, null, null
      from ${schema}.executions
      where cancelling and status = 'running' and owner = $3::uuid`,

    /** In how many ms the next wakeup of these handlers is due; null if none has a time. Safe: reads. */
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
