/** The statements that claim, complete, release and delete executions. */

import { admissionFragments } from './admission-fragments.ts'
import { sqlFragments } from './fragments.ts'

/** By how much retention moves on the expiry of an outcome that an unfinished execution still wants, in seconds. */
const KEPT_S = 3600

/**
 * The largest stored body that is read together with its execution, in bytes. A larger one is read by `readBodies`, so
 * that replays of large responses do not hold up small requests in the same batch.
 */
const MAX_INLINE_BODY = 16 * 1024

/** The longest backoff before workers resume a released execution, in seconds. */
const MAX_BACKOFF_S = 300

/**
 * The SQL texts by name. The comment of each says why it is safe when two run at once. All statements are written
 * for READ COMMITTED; under a stricter isolation level they are correct because a conflict is retried. All are safe
 * to repeat, because after a lost reply a driver cannot know whether the statement was committed.
 */
export type ExecutionStatements = ReturnType<typeof executionStatements>

/** @param schema the schema's name, quoted as an identifier */
export function executionStatements(schema: string) {
  const { clock, durableClock, batchClock, incarnation, milliseconds, toMicros, afterEnd, isKept } =
    sqlFragments(schema)
  const { leave, leavingOf, leftPlace, sharesWithLeaving } = admissionFragments(schema)
  // Not "exists": the planner may evaluate that for all rows at once, with a scan of the whole table.
  const hasSteps = `(select true from ${schema}.steps s
        where s.execution_id = e.id and s.life = e.created_at limit 1)`
  const found = (
    isExpired: string,
  ) => `e.status, e.fingerprint, e.owner, e.attempt, ${incarnation('e')}::text,
      ${isExpired}, coalesce(p.expires_at > clock.now, false),
      case when e.status <> 'done' then ${hasSteps} end,
      e.response_status, e.response_headers,
      case when octet_length(e.response_body) <= ${MAX_INLINE_BODY} then e.response_body end, octet_length(e.response_body)`

  // The wakeup makes workers check an execution whose input is stored, when its owner may have died.
  const insertWakeup = (created: string, leaseMs: string) => `
        insert into ${schema}.wakeups (execution_id, handler, due_at, max_attempts, begun)
        select input.id, 'requests', clock.now + ${milliseconds(`${leaseMs}::int8`)}, input.attempts, true
        from input join ${created} using (id), clock
        where input.input is not null
        on conflict (execution_id) do update
          set due_at = excluded.due_at, max_attempts = excluded.max_attempts`

  // What an execution's end has done to its queue, as rows of their own.
  const advanced = ', null::text, null::text, null::int4, null::bool'
  const andAdvanced = `
      union all
      select null, null, null, queue, lane, entered, more from advanced`

  const complete = (isQueued: boolean) => `
      with recursive ${batchClock('$10')},
      done as (
      update ${schema}.executions e
      set status = 'done', response_status = t.status, response_headers = t.headers,
        response_body = t.body, last_error = null, completed_at = clock.now,
        expires_at = clock.now + ${milliseconds('t.retention')}
      from unnest($1::uuid[], $2::int8[], $3::int4[], $4::bool[], $5::int2[], $6::bytea[], $7::bytea[], $8::int8[])
          with ordinality as t (id, incarnation, attempt, only_current, status, headers, body, retention, n),
        clock
      where e.id = t.id and ${incarnation('e')} = t.incarnation and e.status <> 'done'
        and (e.status = 'running' and e.owner = $9::uuid and e.attempt = t.attempt
          or not t.only_current and not e.giving_up)
      returning t.n::int4, e.awaited, e.id, e.input is not null as wakes, e.waiters
      ),
      ${afterEnd('done', isQueued ? sharesWithLeaving : 'false')}
      ${isQueued ? `,${leavingOf('select id from done', 'notified')}, ${leave}` : ''}
      select n, awaited, waiters is not null${isQueued ? advanced : ''} from done${isQueued ? andAdvanced : ''}`

  const release = (isQueued: boolean) => `
      with recursive ${batchClock('$9')},
      released as (
      update ${schema}.executions e
      set status = t.status, owner = null, last_error = t.error
      from unnest($1::uuid[], $2::int8[], $3::int4[], $4::text[], $6::bytea[], $7::int8[], $8::bool[])
          with ordinality as t (id, incarnation, attempt, status, error, delay, counts, n),
        clock
      where e.id = t.id and ${incarnation('e')} = t.incarnation and e.attempt = t.attempt
        and e.status = 'running' and e.owner = $5::uuid
      returning t.n::int4, e.awaited, e.id, e.attempt, e.input is not null as wakes, t.status, t.delay,
        t.counts
      ),
      rescheduled as (
        update ${schema}.wakeups w
        set due_at = case when r.status = 'parked' then 'infinity'
            else clock.now + coalesce(${milliseconds('r.delay')}, least(2 ^ least(r.attempt - 1, 20), ${MAX_BACKOFF_S})
              * (0.5 + random() / 2) * interval '1 second') end,
          max_attempts = w.max_attempts + case when r.counts then 0 else 1 end,
          admitted = w.admitted and (r.status <> 'parked' or w.queue is null)${isQueued ? leftPlace("r.status = 'parked'") : ''}
        from released r, clock
        where w.execution_id = any (array(select id from released where wakes))
          and w.execution_id = r.id
      )
      ${isQueued ? `,${leavingOf("select id from released where status = 'parked'")}, ${leave}` : ''}
      select n, awaited, false${isQueued ? advanced : ''} from released${isQueued ? andAdvanced : ''}`

  return {
    /**
     * Inserts new executions, or returns the existing ones. Safe: the primary key lets one insert win; a
     * concurrent one waits for the winner's commit and then does nothing. The losing statement's snapshot may be
     * older than that commit; then it returns neither a claim nor a row, and the caller reads again. Rows are
     * inserted in the order of their ids, so that two overlapping batches cannot deadlock. The insert that wins
     * also inserts the wakeup, if the input is stored.
     */
    claim: `
      with ${batchClock('$11')},
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
          clock.now, clock.now + ${milliseconds('retention')}
        from input, clock
        order by id
        on conflict (id) do nothing
        returning e.id, ${incarnation('e')}::text as incarnation
      ),
      new_wakeups as (${insertWakeup('claimed', '$10')})
      -- A request has neither parent nor waiters, so nothing keeps it beyond its retention.
      select input.n::int4, claimed.incarnation, ${found('e.expires_at <= clock.now')}
      from input
      cross join clock
      left join claimed on claimed.id = input.id
      left join ${schema}.executions e on e.id = input.id
      left join ${schema}.processes p on p.id = e.owner`,

    /** Reads executions by id. Safe: only reads. */
    read: `
      with ${clock}
      select input.n::int4, ${found(`e.expires_at <= clock.now and not ${isKept('e')}`)}
      from unnest($1::uuid[]) with ordinality as input (id, n)
      cross join clock
      join ${schema}.executions e on e.id = input.id
      left join ${schema}.processes p on p.id = e.owner`,

    /** Reads the stored bodies of executions, each of a certain incarnation. Safe: only reads; an outcome never changes. */
    readBodies: `
      select input.n::int4, e.response_body
      from unnest($1::uuid[], $2::int8[]) with ordinality as input (id, incarnation, n)
      join ${schema}.executions e on e.id = input.id and ${incarnation('e')} = input.incarnation`,

    /**
     * Describes an execution. Only if $2 is true: its state, also after it has expired, and the last error and
     * the outcome, which may be large. Safe: it only reads.
     */
    describe: `
      with ${clock}
      select ${incarnation('e')}::text, e.kind, e.name, e.scope, e.key, e.version,
        case when e.status = 'running' and not coalesce(p.expires_at > clock.now, false)
          then 'interrupted' else e.status end,
        e.attempt, e.cancelling and e.status <> 'done', ${toMicros('e.completed_at')}::text,
        case when $2::bool then e.last_error end,
        case when $2::bool then e.response_status end,
        case when $2::bool then e.response_headers end,
        case when $2::bool then e.response_body end
      from ${schema}.executions e
      cross join clock
      left join ${schema}.processes p on $2::bool and p.id = e.owner
      where e.id = $1::uuid and ($2::bool or e.expires_at > clock.now or e.status = 'running' or ${isKept('e')})`,

    /**
     * Begins a new attempt at an execution whose last one has ended. Safe: a compare-and-set on the attempt's
     * number (and the incarnation) under the row's lock. Of two that saw the same attempt, the second finds the
     * number changed and updates nothing. Whether the owner is alive is checked again here, so that an owner
     * that came back keeps its execution. The wakeup, which after a release may be far away, is due when the lease
     * ends, as after a claim.
     */
    takeOver: `
      with ${durableClock},
      taken as (
        update ${schema}.executions e
        set status = 'running', owner = $4::uuid, attempt = e.attempt + 1
        from clock
        where e.id = $1::uuid and ${incarnation('e')} = $2::int8 and e.attempt = $3::int4
          and (e.status in ('released', 'unknown', 'parked') or e.status = 'running' and not exists (
            select from ${schema}.processes p where p.id = e.owner and p.expires_at > clock.now))
        returning e.id, e.attempt, ${incarnation('e')}::text as incarnation, e.input is not null as wakes
      ),
      rescheduled as (
        update ${schema}.wakeups set due_at = clock.now + ${milliseconds('$5::int8')}
        from clock
        where execution_id = any (array(select id from taken where wakes))
      )
      select attempt, incarnation from taken`,

    /**
     * Replaces an expired execution with a new one, with an empty journal. Safe: the same compare-and-set as
     * takeOver; and since created_at changes, no attempt of the old incarnation can write any more.
     */
    restartExpired: `
      with ${durableClock},
      input as (
        select $1::uuid as id, ($6::bytea[])[2] as input, e.attempt + $9::int4 as attempts
        from ${schema}.executions e where e.id = $1::uuid
      ),
      restarted as (
      update ${schema}.executions e
      set status = 'running', owner = $4::uuid, attempt = e.attempt + 1, awaited = false,
        giving_up = false, name = $5::text, fingerprint = ($6::bytea[])[1], input = ($6::bytea[])[2],
        response_status = null, response_headers = null, response_body = null, completed_at = null,
        created_at = clock.now, expires_at = clock.now + ${milliseconds('$7::int8')}
      from clock
      where e.id = $1::uuid and ${incarnation('e')} = $2::int8 and e.attempt = $3::int4
        and e.expires_at <= clock.now
        and not (e.status = 'running' and exists (
          select from ${schema}.processes p where p.id = e.owner and p.expires_at > clock.now))
      returning e.id, e.attempt, ${incarnation('e')}::text as incarnation
      ),
      deleted_steps as (
        delete from ${schema}.steps where execution_id = any (array(select id from restarted))
      ),
      new_wakeups as (${insertWakeup('restarted', '$8')})
      select attempt, incarnation from restarted`,

    /**
     * Records outcomes. Safe: of two that complete one execution, the row's lock makes the second wait; it finds
     * the execution done and changes nothing, and its caller adopts the recorded outcome. Any attempt may write a
     * success. A failure ('only_current' is true) may be written only by the current attempt, so that a stale
     * process cannot fail an execution that a healthy one is working on. Once an attempt has given up and runs
     * compensations, a success too may be written only by the current attempt. The error of an earlier attempt
     * is deleted: the outcome is now all there is to say.
     */
    complete: complete(false),
    /**
     * The same for executions of queues, whose places the next ones get in the same commit. A statement of its own,
     * because it takes longer to plan.
     */
    completeQueued: complete(true),

    /**
     * Ends attempts without an outcome. Safe: only the current attempt can release its execution, checked under
     * the row's lock. If workers resume the execution, they do so after a backoff that grows with the attempts,
     * or after the given delay. An attempt that does not count (a shutdown) raises the maximum by one. A parked
     * execution holds no slot.
     */
    release: release(false),
    /** The same for executions of queues; the places of those that are parked go to the next ones. */
    releaseQueued: release(true),

    /**
     * Deletes an execution whose claim may have been committed although the reply was lost. Safe: only if this
     * process owns exactly that attempt, whose handler never ran.
     */
    undoClaim: `
      with ${durableClock}
      delete from ${schema}.executions using clock
      where id = $1::uuid and owner = $2::uuid and status = 'running' and attempt = $3::int4`,

    /**
     * Sets the flag that makes the execution's end send a notification. Safe: only on a row that is not done;
     * completing the execution reads the flag under the same lock.
     */
    markAwaited: `
      update ${schema}.executions set awaited = true
      where id = $1::uuid and status <> 'done' and not awaited`,

    /**
     * Releases a stuck execution, as a person asked; workers resume it, also if it was parked. Safe: an execution
     * that a live owner is running does not change.
     */
    releaseStuck: `
      with ${durableClock},
      freed as (
      update ${schema}.executions e set status = 'released', owner = null
      from clock
      where e.id = $1::uuid and (e.status in ('unknown', 'parked') or e.status = 'running' and not exists (
        select from ${schema}.processes p where p.id = e.owner and p.expires_at > clock.now))
      returning e.id, e.attempt
      ),
      woken as (
        update ${schema}.wakeups w
        set due_at = clock.now, max_attempts = freed.attempt + greatest(w.max_attempts, 1),
          -- A parked execution of a queue has left its place.
          place = case when w.admitted then w.place else 'arriving' end, begun = w.begun and w.admitted
        from freed, clock
        where w.execution_id = freed.id
      )
      select attempt, exists (select from ${schema}.wakeups w where w.execution_id = freed.id)
      from freed`,

    /** Sends notifications. Safe: they are delivered after this statement's commit; every waiter polls as well. */
    notify: 'select pg_notify($1, id) from unnest($2::text[]) as t (id)',

    /**
     * Looks at a batch of expired executions: deletes them, and moves the expiry on of those that are still kept for
     * an unfinished execution, so that the next batch does not find them again. Returns for each whether it was
     * deleted. Safe: SKIP LOCKED skips the rows that a claim or another process's retention has locked, so neither
     * waits for the other for longer than one short batch. Whether a row is kept may be decided by a snapshot in which
     * the one that wants it has not ended yet; then the row goes an hour later. An execution that a live process is
     * running never expires. It uses arrays and scalar subqueries, because with joins Postgres reads the whole table
     * or the whole index for each batch, and may apply the limit more than once.
     */
    deleteExpired: `
      with ${clock},
      expired as materialized (
        select e.id, ${isKept('e')} as kept
        from ${schema}.executions e
        where e.expires_at <= (select now from clock)
          and not (e.status = 'running' and exists (
            select from ${schema}.processes p
            where p.id = e.owner and p.expires_at > (select now from clock)))
        order by e.expires_at
        limit $1::int4
        for update of e skip locked
      ),
      moved_on as (
        update ${schema}.executions e set expires_at = clock.now + interval '${KEPT_S} seconds'
        from clock
        where e.id = any (array(select id from expired where kept))
      ),
      deleted as (
        delete from ${schema}.executions where id = any (array(select id from expired where not kept))
        returning id
      ),
      deleted_steps as (
        delete from ${schema}.steps where execution_id = any (array(select id from deleted))
      ),
      deleted_wakeups as (
        delete from ${schema}.wakeups where execution_id = any (array(select id from deleted))
      ),
      deleted_signals as (
        delete from ${schema}.signals where execution_id = any (array(select id from deleted))
      )
      select not kept from expired`,
  }
}
