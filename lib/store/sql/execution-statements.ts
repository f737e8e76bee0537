import { fragments } from './fragments.ts'

/** The longest that workers wait before they try again, in seconds. */
const MAX_BACKOFF_S = 300

/**
 * The SQL of the hot path and of processes. Each statement says why it is safe when two run at once;
 * all of them assume READ COMMITTED and are also correct, by being sent again, under the stricter
 * levels. All may be sent twice: a driver cannot know whether a lost reply meant a lost commit.
 */
export type Statements = ReturnType<typeof statements>

/** @param schema the schema's name, quoted as an identifier */
export function statements(schema: string) {
  const { now, clock, born, ms, ended } = fragments(schema)
  // Not "exists": the planner may answer that for all rows at once, out of the whole table.
  const journaled = `(select true from ${schema}.steps s
        where s.execution_id = e.id and s.life = e.created_at limit 1)`
  const found = `e.status, e.fingerprint, e.owner, e.attempt, ${born('e')}::text,
      e.expires_at <= clock.now, coalesce(p.expires_at > clock.now, false),
      case when e.status <> 'done' then ${journaled} end,
      e.response_status, e.response_headers, e.response_body`

  // Workers look at an execution whose input is stored, when its owner may have died.
  const wakeUp = (created: string, leaseMs: string) => `
        insert into ${schema}.wakeups (execution_id, handler, due_at, max_attempts)
        select input.id, 'requests', clock.now + ${ms(`${leaseMs}::int8`)}, input.attempts
        from input join ${created} using (id), clock
        where input.input is not null
        on conflict (execution_id) do update
          set due_at = excluded.due_at, max_attempts = excluded.max_attempts`

  return {
    /**
     * Safe: the primary key lets one insert win; a concurrent one waits for the winner's commit and
     * then does nothing. The losing statement's snapshot may be older than that commit, in which
     * case it returns neither a claim nor a row, and the caller looks again. Rows go in in the order
     * of their id, so that two batches that overlap cannot deadlock. The wakeup of an execution whose input
     * is stored is inserted by whoever inserted the execution.
     */
    claim: `
      with ${clock},
      input as (
        select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::int8[],
            $7::bytea[], $8::int4[])
          with ordinality as t (id, scope, key, name, fingerprint, retention, input, attempts, n)
      ),
      claimed as (
        insert into ${schema}.executions as e
          (id, scope, key, kind, name, fingerprint, status, owner, attempt, input, created_at,
            expires_at)
        select id, scope, key, 'request', name, fingerprint, 'running', $9::uuid, 1, input,
          clock.now, clock.now + ${ms('retention')}
        from input, clock
        order by id
        on conflict (id) do nothing
        returning e.id, ${born('e')}::text as born
      ),
      awake as (${wakeUp('claimed', '$10')})
      select input.n::int4, claimed.born, ${found}
      from input
      cross join clock
      left join claimed on claimed.id = input.id
      left join ${schema}.executions e on e.id = input.id
      left join ${schema}.processes p on p.id = e.owner`,

    /** Safe: reads. */
    look: `
      with ${clock}
      select input.n::int4, ${found}
      from unnest($1::uuid[]) with ordinality as input (id, n)
      cross join clock
      join ${schema}.executions e on e.id = input.id
      left join ${schema}.processes p on p.id = e.owner`,

    /**
     * Safe: a compare-and-set on the attempt's number (and the row's life) under the row's lock. Of
     * two that saw the same attempt, the second finds the number changed and updates nothing. The
     * owner's life is checked again here, so that an owner that came back keeps its execution.
     */
    takeOver: `
      with ${clock}
      update ${schema}.executions e
      set status = 'running', owner = $4::uuid, attempt = e.attempt + 1
      from clock
      where e.id = $1::uuid and ${born('e')} = $2::int8 and e.attempt = $3::int4
        and (e.status in ('released', 'unknown', 'parked') or e.status = 'running' and not exists (
          select from ${schema}.processes p where p.id = e.owner and p.expires_at > clock.now))
      returning e.attempt, ${born('e')}::text`,

    /**
     * An expired execution becomes a new one, with an empty journal. Safe: the same compare-and-set; and
     * since created_at changes, nothing that was under way for the old life can write any more.
     */
    restart: `
      with ${clock},
      input as (
        select $1::uuid as id, ($6::bytea[])[2] as input, e.attempt + $9::int4 as attempts
        from ${schema}.executions e where e.id = $1::uuid
      ),
      restarted as (
      update ${schema}.executions e
      set status = 'running', owner = $4::uuid, attempt = e.attempt + 1, awaited = false,
        giving_up = false, name = $5::text, fingerprint = ($6::bytea[])[1], input = ($6::bytea[])[2],
        response_status = null, response_headers = null, response_body = null, completed_at = null,
        created_at = clock.now, expires_at = clock.now + ${ms('$7::int8')}
      from clock
      where e.id = $1::uuid and ${born('e')} = $2::int8 and e.attempt = $3::int4
        and e.expires_at <= clock.now
        and not (e.status = 'running' and exists (
          select from ${schema}.processes p where p.id = e.owner and p.expires_at > clock.now))
      returning e.id, e.attempt, ${born('e')}::text as born
      ),
      forgotten as (
        delete from ${schema}.steps where execution_id = any (array(select id from restarted))
      ),
      awake as (${wakeUp('restarted', '$8')})
      select attempt, born from restarted`,

    /**
     * Safe: the row's lock serialises two that complete one execution, and the second finds it done
     * and changes nothing; its caller then adopts what is there. Any attempt may write a success. A
     * failure ('current' is true) may be written only by the current attempt, so that a stale process
     * cannot fail an execution that a healthy one is working on; and so may anything, once an attempt has
     * given up and undoes what was done.
     */
    complete: `
      with ${clock},
      done as (
      update ${schema}.executions e
      set status = 'done', response_status = t.status, response_headers = t.headers,
        response_body = t.body, completed_at = clock.now, expires_at = clock.now + ${ms('t.retention')}
      from unnest($1::uuid[], $2::int8[], $3::int4[], $4::bool[], $5::int2[], $6::bytea[], $7::bytea[], $8::int8[])
          with ordinality as t (id, born, attempt, current, status, headers, body, retention, n),
        clock
      where e.id = t.id and ${born('e')} = t.born and e.status <> 'done'
        and (e.status = 'running' and e.owner = $9::uuid and e.attempt = t.attempt
          or not t.current and not e.giving_up)
      returning t.n::int4, e.awaited, e.id, e.input is not null as wakes, e.waiters, e.queue, e.lane
      ),
      ${ended('done')}
      select n, awaited, queue, lane, waiters is not null from done`,

    /**
     * Safe: only the current attempt can give its execution back, checked under the row's lock. Where
     * workers go on with it, they do so when its time has come: later and later, unless the attempt says
     * when. One that does not count (a shutdown) leaves as many attempts as there were. Whoever is parked
     * holds no slot.
     */
    release: `
      with ${clock},
      released as (
      update ${schema}.executions e
      set status = t.status, owner = null, last_error = t.error
      from unnest($1::uuid[], $2::int8[], $3::int4[], $4::text[], $6::bytea[], $7::int8[], $8::bool[])
          with ordinality as t (id, born, attempt, status, error, delay, counts, n)
      where e.id = t.id and ${born('e')} = t.born and e.attempt = t.attempt
        and e.status = 'running' and e.owner = $5::uuid
      returning t.n::int4, e.awaited, e.id, e.attempt, e.input is not null as wakes, t.status, t.delay,
        t.counts, e.queue, e.lane
      ),
      later as (
        update ${schema}.wakeups w
        set due_at = case when r.status = 'parked' then 'infinity'
            else clock.now + coalesce(${ms('r.delay')}, least(2 ^ least(r.attempt - 1, 20), ${MAX_BACKOFF_S})
              * (0.5 + random() / 2) * interval '1 second') end,
          max_attempts = w.max_attempts + case when r.counts then 0 else 1 end,
          admitted = w.admitted and (r.status <> 'parked' or w.queue is null)
        from released r, clock
        where w.execution_id = any (array(select id from released where wakes))
          and w.execution_id = r.id
      ),
      freed as (
        delete from ${schema}.slots
        where execution_id = any (array(select id from released where status = 'parked'))
      )
      -- Only what is parked frees anything.
      select n, awaited, case when status = 'parked' then queue end, lane from released`,

    /**
     * Gives back a claim whose reply was lost, if it was made at all. Safe: it names this process and
     * the attempt, whose handler never ran; nobody else can have started it.
     */
    disown: `
      delete from ${schema}.executions
      where id = $1::uuid and owner = $2::uuid and status = 'running' and attempt = $3::int4`,

    /** Safe: sets a flag on a row that is not done; completing it reads the flag under the same lock. */
    await: `
      update ${schema}.executions set awaited = true
      where id = $1::uuid and status <> 'done' and not awaited`,

    /**
     * A person frees an execution; workers that had given it up try again. Safe: one that is running under
     * a live owner is left alone.
     */
    free: `
      with ${clock},
      freed as (
      update ${schema}.executions e set status = 'released', owner = null
      from clock
      where e.id = $1::uuid and (e.status in ('unknown', 'parked') or e.status = 'running' and not exists (
        select from ${schema}.processes p where p.id = e.owner and p.expires_at > clock.now))
      returning e.id, e.attempt
      ),
      awake as (
        update ${schema}.wakeups w
        set due_at = clock.now, max_attempts = freed.attempt + greatest(w.max_attempts, 1)
        from freed, clock
        where w.execution_id = freed.id
      )
      select attempt, exists (select from ${schema}.wakeups w where w.execution_id = freed.id)
      from freed`,

    /** Safe: notifications are delivered after this statement's commit; nobody waits for one only. */
    notify: 'select pg_notify($1, id) from unnest($2::text[]) as t (id)',

    /**
     * Registers the process and retires its predecessor of the same instance name, whose executions
     * workers may go on with at once. Safe: each names
     * its own row; of two that start under one name at once, the later commit leaves both, and both
     * are alive, which is true.
     */
    register: `
      with ${clock},
      retired as (
        delete from ${schema}.processes where instance = $2::text and id <> $1::uuid returning id
      ),
      registered as (
        insert into ${schema}.processes
          (id, instance, host, pid, version, started_at, heartbeat, expires_at)
        select $1::uuid, $2::text, $3::text, $4::int4, $5::text, now, now, now + ${ms('$6::int8')}
        from clock
        on conflict (id) do update
          set heartbeat = excluded.heartbeat, expires_at = excluded.expires_at
      ),
      woken as (
        update ${schema}.wakeups w set due_at = least(w.due_at, clock.now)
        from ${schema}.executions e, retired, clock
        where e.id = w.execution_id and e.status = 'running' and e.owner = retired.id
      )
      select id from retired`,

    /** Safe: one row, written by its own process only. Returns nothing if somebody retired it. */
    heartbeat: `
      with ${clock}
      update ${schema}.processes p
      set heartbeat = clock.now, expires_at = clock.now + ${ms('$2::int8')}
      from clock
      where p.id = $1::uuid
      returning p.id`,

    /** Safe: one row; deleting it twice deletes it once. */
    unregister: `delete from ${schema}.processes where id = $1::uuid`,

    /**
     * Safe: SKIP LOCKED passes over rows that a claim or another process's retention holds, so
     * neither waits for the other for longer than one short batch. An execution that a live process
     * is running never expires. An array and scalar subqueries, since joins here make Postgres read the
     * whole table, or the whole index, for each batch; and a join may repeat the limit.
     */
    deleteExpired: `
      with ${clock},
      expired as (
      delete from ${schema}.executions where id = any (array(
        select e.id from ${schema}.executions e
        where e.expires_at <= (select now from clock)
          and not (e.status = 'running' and exists (
            select from ${schema}.processes p
            where p.id = e.owner and p.expires_at > (select now from clock)))
        order by e.expires_at
        limit $1::int4
        for update of e skip locked))
      returning id
      ),
      forgotten as (
        delete from ${schema}.steps where execution_id = any (array(select id from expired))
      ),
      asleep as (
        delete from ${schema}.wakeups where execution_id = any (array(select id from expired))
      ),
      unread as (
        delete from ${schema}.signals where execution_id = any (array(select id from expired))
      )
      select 1 from expired`,

    /** Safe: rows of processes that have been dead for a day; their executions are judged dead without them. */
    deleteDead: `
      delete from ${schema}.processes where expires_at < ${now} - interval '1 day' returning 1`,
  }
}
