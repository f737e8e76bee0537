import { fragments } from './fragments.ts'

/** The SQL of executions that go on by themselves. The rules of statements.ts hold here too. */
export type WakeupStatements = ReturnType<typeof wakeupStatements>

/** @param schema the schema's name, quoted as an identifier */
export function wakeupStatements(schema: string) {
  const { clock, born, ms } = fragments(schema)

  return {
    /**
     * Takes executions whose wakeup is due and that nobody is working on. Safe: SKIP LOCKED gives each
     * wakeup to one worker at a time; taking the execution is a compare-and-set on its attempt under the
     * row's lock, so that of a worker and a client's retry one gets it. Who is alive is read from the
     * snapshot, which decides only who works. What this process owns and does not work on ($5) it has taken
     * and not been told of, since the reply was lost: it is told again. A wakeup is moved on and not deleted, so that it is still
     * there if this worker dies too.
     */
    takeDue: `
      with ${clock},
      due as (
        select w.execution_id, w.max_attempts
        from ${schema}.wakeups w
        where w.queue = $1::text and w.due_at <= (select now from clock)
          and w.execution_id <> all ($5::uuid[])
        order by w.due_at
        limit $2::int4
        for update skip locked
      ),
      judged as (
        select due.execution_id, e.attempt,
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
          and e.attempt = judged.attempt and e.status in ('running', 'released')
        returning e.id, e.attempt, ${born('e')}::text as born, e.scope, e.key, e.name, e.fingerprint,
          e.input
      ),
      parked as (
        update ${schema}.executions e
        set status = 'parked', owner = null
        from judged
        where e.id = judged.execution_id and judged.verdict = 'spent'
          and e.attempt = judged.attempt and e.status in ('running', 'released')
        returning e.id, e.scope, e.key, e.attempt, e.name
      ),
      settled as (
        delete from ${schema}.wakeups
        where execution_id = any (array(select execution_id from judged where verdict = 'gone'))
      ),
      moved as (
        update ${schema}.wakeups w
        set due_at = case when judged.verdict = 'spent' then 'infinity'
          else clock.now + ${ms('$4::int8')} end
        from judged, clock
        where w.execution_id = any (array(select execution_id from judged where verdict <> 'gone'))
          and w.execution_id = judged.execution_id
      )
      select false as parked, id, attempt, born, scope, key, name, fingerprint, input from taken
      union all
      select true, id, attempt, null, scope, key, name, null, null from parked`,
  }
}
