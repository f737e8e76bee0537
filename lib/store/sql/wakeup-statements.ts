import { fragments } from './fragments.ts'

/** The SQL of executions that go on by themselves. The rules of statements.ts hold here too. */
export type WakeupStatements = ReturnType<typeof wakeupStatements>

/** @param schema the schema's name, quoted as an identifier */
export function wakeupStatements(schema: string) {
  const { clock, born, micros, ms } = fragments(schema)

  return {
    /**
     * Takes executions whose wakeup is due and that nobody is working on. Safe: SKIP LOCKED gives each
     * wakeup to one worker at a time; the execution is judged and taken under its row's lock, so that of a
     * worker and a client's retry one gets it. Whoever wakes an execution locks it before its wakeup, and
     * this locks them the other way round: it must not wait, and leaves to the next look what is locked
     * ('busy'). Who is alive is read from the snapshot, which decides only who works. What this process owns
     * and does not work on ($5) it has taken and not been told of, since the reply was lost: it is told
     * again. A process that seems dead to the others takes nothing before it has said that it lives: they
     * would take it over at once. A wakeup is moved on and not deleted, so that it is still there if this
     * worker dies too. One range of the index for each handler and priority, so that a backlog of one is not
     * read to find another.
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
        where (select p.expires_at > clock.now from ${schema}.processes p cross join clock where p.id = $3::uuid)
        order by priorities.priority desc
        limit $2::int4
      ),
      held as (
        select e.id, e.status, e.owner, e.attempt, e.input is not null as wakes
        from ${schema}.executions e
        where e.id = any (array(select execution_id from due))
        for no key update skip locked
      ),
      judged as (
        select due.execution_id, due.max_attempts, p.expires_at,
          case
            when e.id is null or held.status in ('done', 'unknown') or not held.wakes then 'gone'
            when held.id is null then 'busy'
            when held.status = 'parked' then 'parked'
            when held.status = 'running' and held.owner = $3::uuid then 'ours'
            when held.status = 'running' and coalesce(p.expires_at > clock.now, false) then 'running'
            when held.attempt >= due.max_attempts then 'spent'
            else 'free'
          end as verdict
        from due
        cross join clock
        left join ${schema}.executions e on e.id = due.execution_id
        left join held on held.id = due.execution_id
        left join ${schema}.processes p on p.id = held.owner
      ),
      taken as (
        update ${schema}.executions e
        set status = 'running', owner = $3::uuid,
          attempt = e.attempt + case when judged.verdict = 'free' then 1 else 0 end
        from judged
        where e.id = any (array(select execution_id from judged where verdict in ('free', 'ours')))
          and e.id = judged.execution_id
        returning e.id, e.attempt, ${born('e')}::text as born, e.kind, e.scope, e.key, e.name,
          e.version, e.fingerprint, e.input, e.inbox, e.cancelling, ${micros('e.deadline')}::text as deadline,
          judged.max_attempts
      ),
      parked as (
        update ${schema}.executions e
        set status = 'parked', owner = null
        where e.id = any (array(select execution_id from judged where verdict = 'spent'))
        returning e.id, e.kind, e.scope, e.key, e.attempt, e.name
      ),
      settled as (
        delete from ${schema}.wakeups
        where execution_id = any (array(select execution_id from judged where verdict = 'gone'))
      ),
      moved as (
        update ${schema}.wakeups w
        set due_at = case
            when judged.verdict in ('spent', 'parked') then 'infinity'
            -- When its owner is dead unless it says otherwise.
            when judged.verdict = 'running' then judged.expires_at
            else clock.now + ${ms('$4::int8')} end,
          admitted = judged.verdict not in ('spent', 'parked') or w.queue is null
        from judged, clock
        where w.execution_id = any (array(
            select execution_id from judged where verdict not in ('gone', 'busy')))
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
      where cancelling and status = 'running' and owner = $3::uuid
      union all
      select 'looked', null, count(*) filter (where verdict <> 'busy')::int4, null, null, null, null, null,
        null, null, null, count(*) filter (where verdict = 'busy')::int4, null, null, null, null
      from judged`,

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
