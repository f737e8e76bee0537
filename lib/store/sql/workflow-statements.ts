/** The statements that start, suspend, signal and cancel executions that outlive a request. */

import { admissionFragments } from './admission-fragments.ts'
import { sqlFragments } from './fragments.ts'

/** How many unread signals are read at a time: most waits want the first. */
export const SIGNALS_AT_ONCE = 16

/** The SQL texts by name. They follow the rules of ExecutionStatements. */
export type WorkflowStatements = ReturnType<typeof workflowStatements>

/** @param schema the schema's name, quoted as an identifier */
export function workflowStatements(schema: string) {
  const {
    clock,
    durableClock,
    batchClock,
    incarnation,
    toMicros,
    milliseconds,
    fromMicros,
    isKept,
  } = sqlFragments(schema)

  const { enter, leave } = admissionFragments(schema)
  const now = '(select now from clock)'

  // expires_at is 'infinity', because an unfinished workflow never expires. `entry` gives those of queues their places.
  const start = (
    clock: string,
    input: string,
    { runs = 'false', owner = 'null::uuid', lease = '0' } = {},
    entry = '',
  ) => `
      with ${clock},
      input as (${input}),
      started as (
        insert into ${schema}.executions
          (id, scope, key, kind, name, version, fingerprint, status, owner, attempt, input, parent,
            parent_life, queue, lane, deadline, created_at, expires_at)
        select id, scope, key, kind, name, version, fingerprint,
          case when ${runs} then 'running' else 'waiting' end, case when ${runs} then ${owner} end,
          case when ${runs} then 1 else 0 end, input, parent, ${fromMicros('parent_life')}, queue, lane,
          clock.now + ${milliseconds('timeout')}, clock.now, 'infinity'
        from input, clock
        order by id
        on conflict (id) do nothing
        returning id, ${incarnation('executions')}::text as incarnation
      ),
      ${entry}
      new_wakeups as (
        insert into ${schema}.wakeups
          (execution_id, handler, due_at, max_attempts, admitted, place, priority, begun, queue, lane, enqueued_at)
        select input.id, input.handler, clock.now + case when ${runs} then ${milliseconds(lease)} else ${milliseconds('delay')} end,
          input.attempts, ${entry ? "coalesce(placed.place = 'in', true), placed.place" : "input.queue is null, case when input.queue is not null then 'arriving' end"},
          input.priority, ${runs}, input.queue, input.lane,
          -- Executions of one statement keep their order of arrival.
          clock.now + ${milliseconds('delay')} + input.arrival * interval '1 microsecond'
        from input join started using (id)${entry && ' left join placed using (id)'}, clock
      )`

  const startBatch = (isQueued: boolean) => `${start(
    batchClock('$21'),
    `select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
            $7::bytea[], $8::bytea[], $9::uuid[], $10::text[], $11::text[], $12::text[], $13::int4[],
            $14::int2[], $15::int8[], $16::int8[], $17::bool[], $20::int4[], $22::int8[])
          with ordinality as t (id, scope, key, kind, name, version, fingerprint, input, parent, queue,
            lane, handler, attempts, priority, delay, timeout, runs, arrival, parent_life, n)`,
    { runs: 'runs', owner: '$18::uuid', lease: '$19::int8' },
    isQueued
      ? `arriving as materialized (
        select input.id, input.queue, input.lane, input.handler, input.priority, input.arrival, input.delay <= 0 as due,
          false as counted
        from input join started using (id)
        where input.queue is not null
      ),
      ${enter},`
      : '',
  )}
      select input.n::int4, started.incarnation, e.fingerprint,
        e.expires_at <= clock.now and not ${isKept('e')}, ${toMicros('clock.now')}::text, ${isQueued ? 'placed.place' : 'null'}
      from input
      cross join clock
      left join started on started.id = input.id
      ${isQueued ? 'left join placed on placed.id = input.id' : ''}
      left join ${schema}.executions e on e.id = input.id`

  return {
    /**
     * Creates executions. Safe: the primary key lets one insert win; the loser gets the existing row, or reads
     * again. Rows are inserted in the order of their ids, so that two overlapping batches cannot deadlock. An
     * execution that this process runs at once is created with this process as its owner, and its wakeup is due
     * when the lease ends.
     */
    start: startBatch(false),
    /**
     * The same for executions of queues, which are let in, or set in line, in the same commit. A statement of its own,
     * because it takes longer to plan. Safe: see admissionFragments.
     */
    startQueued: startBatch(true),

    /**
     * Creates an execution inside a transaction of the app: it starts if and when that commits. Safe: as `start`; a
     * concurrent start of the same key waits for this transaction. The result has one column: null if created;
     * otherwise the fingerprint of the existing execution, or 'expired', or 'unseen' if the existing one was
     * committed after this statement's snapshot, so that only the next statement sees it. It does not notify: a
     * transaction that does takes a lock that all notifying transactions of the cluster share, through its commit.
     */
    startInTransaction: `${start(
      clock,
      `select *, 0 as arrival from (values ($1::uuid, $2::text, $3::text, $4::text, $5::text, $6::text,
            decode($7::text, 'base64'), decode($8::text, 'base64'), $9::uuid, $10::text, $11::text,
            $12::text, $13::int4, $14::int2, $15::int8, $16::int8, $17::int8))
          as t (id, scope, key, kind, name, version, fingerprint, input, parent, queue,
            lane, handler, attempts, priority, delay, timeout, parent_life)`,
    )}
      select case
          when started.id is not null then null
          when e.id is null then 'unseen'
          when e.expires_at <= clock.now and not ${isKept('e')} then 'expired'
          else encode(e.fingerprint, 'base64')
        end as found
      from input
      cross join clock
      left join started on started.id = input.id
      left join ${schema}.executions e on e.id = input.id`,

    /**
     * Deletes an execution if it is done, has expired and is not kept for another one. Safe: one row, checked under its
     * lock; once it is not kept, nothing can make it kept again.
     */
    deleteIfExpired: `
      with ${clock},
      deleted as (
        delete from ${schema}.executions e using clock
        where e.id = $1::uuid and e.status = 'done' and e.expires_at <= clock.now
          and not ${isKept('e')}
        returning e.id
      ),
      deleted_signals as (
        delete from ${schema}.signals where execution_id = any (array(select id from deleted))
      )
      delete from ${schema}.steps where execution_id = any (array(select id from deleted))`,

    /**
     * Suspends executions until an event arrives or a time is reached. Safe: only the current attempt can, checked
     * under the row's lock together with the inbox count: an event that arrived after the attempt last read has
     * raised the count. An event that arrives after this commit reschedules the wakeup that this has left. A
     * suspension does not count as an attempt, so it raises the maximum by one.
     */
    suspend: `
      with ${batchClock('$7')},
      input as (
        select * from unnest($1::uuid[], $2::int8[], $3::int4[], $4::int4[], $5::int8[], $8::text[], $9::bool[])
          with ordinality as t (id, incarnation, attempt, inbox, due, awaits, listens, n)
      ),
      suspended as (
        update ${schema}.executions e
        set status = 'waiting', owner = null, last_error = null
        from input, clock
        where e.id = input.id and ${incarnation('e')} = input.incarnation and e.attempt = input.attempt
          and e.status = 'running' and e.owner = $6::uuid and e.inbox = input.inbox and not e.cancelling
        returning input.n, e.id, input.due, input.awaits, input.listens
      ),
      rescheduled as (
        update ${schema}.wakeups w
        set due_at = coalesce(${fromMicros('s.due')}, 'infinity'), max_attempts = w.max_attempts + 1,
          awaits = s.awaits::uuid[], listens = s.listens, deadlock = null
        from suspended s
        where w.execution_id = any (array(select id from suspended)) and w.execution_id = s.id
      )
      select input.n::int4, suspended.n is not null, e.inbox, e.cancelling,
        e.status = 'running' and e.owner = $6::uuid and e.attempt = input.attempt
      from input
      left join suspended using (n)
      left join ${schema}.executions e on e.id = input.id and ${incarnation('e')} = input.incarnation`,

    /**
     * Ends the journal of an execution and begins a new life of it, with a new input, in one commit. What belongs to the
     * execution stays: signals that were not received, executions that wait for it, its children, its place in a queue.
     * Safe: only the current attempt can, checked under the row's lock; the former life's attempts find another
     * incarnation from then on.
     */
    continueAs: `
      with ${durableClock},
      old as materialized (
        select e.id, e.created_at, e.cancelling
        from ${schema}.executions e, clock
        where e.id = $1::uuid and ${incarnation('e')} = $2::int8 and e.attempt = $3::int4
          and e.status = 'running' and e.owner = $4::uuid
        for no key update of e
      ),
      continued as (
        update ${schema}.executions e
        set created_at = greatest(clock.now, old.created_at + interval '1 microsecond'), status = 'waiting', owner = null,
          attempt = 0, input = ($5::bytea[])[1], last_error = null, deadline = clock.now + ${milliseconds('$7::int8')}
        from old, clock
        where e.id = $1::uuid and e.id = old.id and not old.cancelling
        returning e.id, e.created_at
      ),
      ended as (
        delete from ${schema}.steps
        where execution_id = any (array(select id from continued)) and life = (select created_at from old)
      ),
      -- Their senders have given up by now: they need not be told from new ones any more.
      forgotten as (
        delete from ${schema}.signals
        where execution_id = any (array(select id from continued)) and taken_at < ${now} - interval '1 day'
      ),
      followed as (
        -- A result that the former life has in its journal is not wanted again.
        update ${schema}.executions e set parent_life = case
          when (select true from ${schema}.steps s
            where s.execution_id = $1::uuid and s.life = (select created_at from old)
              and s.name = 'result ' || e.name || ' ' || e.id::text and s.occurrence = 1) then null
          else continued.created_at end
        from continued
        where e.parent = any (array(select id from continued)) and e.parent_life = (select created_at from old)
      ),
      woken as (
        update ${schema}.wakeups w
        set due_at = clock.now, max_attempts = $6::int4, deaths = 0, last_death = 0, awaits = null, listens = false,
          deadlock = null
        from clock
        where w.execution_id = any (array(select id from continued))
      )
      select old.cancelling from old`,

    /**
     * Stores a signal until a journal entry consumes it. Safe: the primary key keeps one of two that a sender sends
     * at once. It raises the inbox count under the execution's lock, before or after a suspension, and wakes the
     * execution in the same commit.
     */
    sendSignal: `
      with ${durableClock},
      target as (
        update ${schema}.executions set inbox = inbox + 1
        from clock
        where id = $1::uuid and status <> 'done' and kind <> 'request'
        -- A parked execution, or one that has not begun, is not woken; the signal is kept.
        returning id, status <> 'parked' and attempt > 0 as begun
      ),
      sent as (
        insert into ${schema}.signals (execution_id, name, sender, value, sent_at)
        select id, $2::text, $3::text, ($4::bytea[])[1], clock.now from target, clock
        on conflict (execution_id, name, sender) do nothing
      ),
      woken as (
        update ${schema}.wakeups w set due_at = least(w.due_at, clock.now)
        from clock where w.execution_id = any (array(select id from target where begun))
      )
      select id from target`,

    /**
     * Reads the first signals that no journal entry has consumed, in the order of their arrival, behind the one of the
     * sender $3, if given. Safe: only reads.
     */
    readPendingSignals: `
      select sender, value from ${schema}.signals
      where execution_id = $1::uuid and name = $2::text and taken_at is null
        and ($3::text is null or (sent_at, sender) > (
          select sent_at, sender from ${schema}.signals
          where execution_id = $1::uuid and name = $2::text and sender = $3::text))
      order by sent_at, sender
      limit ${SIGNALS_AT_ONCE}`,

    /**
     * Writes the journal entry of a signal and marks the signal as taken. Safe: the entry is written only if the
     * signal is not taken, checked under its row's lock: a concurrent statement waits and finds it taken. If the
     * entry exists, the signal is not taken. The signal's row is kept for as long as the execution, because its
     * sender may send it again, not knowing that it has arrived. Only the current attempt may take a signal,
     * checked under the execution's lock, so that a takeover happens before, or reads the entry. Otherwise the new
     * attempt could wait for ever for a signal that a stale process has taken.
     */
    consumeSignal: `
      with ${durableClock},
      target as (
        select e.id, e.created_at,
          true as current, e.cancelling
        from ${schema}.executions e
        where e.id = $1::uuid and ${incarnation('e')} = $2::int8
          and e.status = 'running' and e.owner = $11::uuid and e.attempt = $3::int4
        for share of e
      ),
      held as (
        select s.execution_id from ${schema}.signals s
        where s.execution_id = $1::uuid and s.name = $8::text and s.sender = $9::text
          and s.taken_at is null
        for update
      ),
      recorded as (
        insert into ${schema}.steps as s
          (execution_id, life, name, occurrence, position, kind, output, attempt, started_at, completed_at)
        select id, created_at, $4::text, $5::int4, $6::int4, 'signal', ($7::bytea[])[1], $3::int4,
          clock.now - ${milliseconds('$10::int8')}, clock.now
        from target, clock
        where exists (select from held)
        on conflict (execution_id, life, name, occurrence) do update
          set output = excluded.output, position = excluded.position, attempt = excluded.attempt,
            completed_at = excluded.completed_at
          where s.completed_at is null and s.kind = 'signal'
        returning s.execution_id
      ),
      taken as (
        update ${schema}.signals set taken_at = clock.now, value = null
        from clock
        where execution_id = any (array(select execution_id from recorded))
          and name = $8::text and sender = $9::text
      )
      select recorded.execution_id is not null, target.current, target.cancelling,
        ${toMicros('clock.now')}::text
      from target cross join clock left join recorded on true`,

    /**
     * Registers waiters, which the statement that ends an execution wakes. Safe: the waiters are in the row of the
     * execution, and the update that ends it reads them under the row's lock. Rows are locked in the order of
     * their ids, the order in which `complete` locks them.
     */
    subscribeToEnd: `
      with ${batchClock('$3')},
      input as (
        select id, array_agg(waiter) as waiters
        from unnest($1::uuid[], $2::uuid[]) as t (id, waiter)
        group by id
      ),
      held as (
        select e.id, input.waiters from ${schema}.executions e join input using (id) cross join clock
        where e.id = any ($1::uuid[]) and e.status <> 'done'
        order by e.id
        for no key update of e
      )
      update ${schema}.executions e
      set waiters = (select array_agg(distinct waiter) from unnest(e.waiters || held.waiters) as t (waiter))
      from held
      where e.id = any (array(select id from held)) and e.id = held.id`,

    /**
     * Cancels an execution and its children. Safe: sets a flag and raises the inbox count under each row's lock, so
     * that none of them is suspended without seeing the flag; one that has ended meanwhile does not change. Each
     * gets at least one more attempt, to run its compensations, and needs no place in a queue for it. `offset 0` makes the
     * planner look up the children of each, also with outdated statistics.
     */
    cancel: `
      with recursive ${durableClock},
      tree (id) as (
        select $1::uuid
        union
        select found.id from tree cross join lateral (
          select e.id from ${schema}.executions e where e.parent = tree.id and e.status <> 'done' offset 0
        ) as found
      ),
      marked as (
        update ${schema}.executions e
        set cancelling = true, inbox = inbox + 1,
          status = case when e.status = 'parked' then 'released' else e.status end
        from clock
        where e.id = any (array(select id from tree)) and e.status <> 'done' and e.kind <> 'request'
        returning e.id, e.attempt, e.queue, e.lane
      ),
      -- Its place may change until these are locked.
      doors as materialized (
        select q.name from ${schema}.queues q
        where q.name = any (array(select queue from marked))
        order by q.name
        for no key update
      ),
      lane_doors as materialized (
        select l.key from ${schema}.lanes l
        where l.queue = any (array(select name from doors)) and l.key = any (array(select lane from marked))
        order by l.queue, l.key
        for no key update
      ),
      seen as materialized (
        select w.execution_id as id, w.queue, w.lane, w.place
        from ${schema}.wakeups w
        where w.execution_id = any (array(select id from marked)) and (select count(*) from lane_doors) >= 0
        order by w.execution_id
        for no key update
      ),
      leaving as materialized (
        select id, queue, lane, place, null::uuid as lender, false as lends_key
        from seen where place in ('key', 'queue', 'delayed')
      ),
      ${leave},
      woken as (
        update ${schema}.wakeups w
        set due_at = least(w.due_at, clock.now), admitted = true,
          place = case when w.place in ('in', 'lent') then w.place end,
          max_attempts = greatest(w.max_attempts, marked.attempt + 1)
        from marked, clock
        where w.execution_id = any (array(select id from marked)) and w.execution_id = marked.id
      )
      select id, null as queue, null as lane, null::int4 as entered, null::bool as more from marked
      union all
      select null, queue, lane, entered, more from advanced`,
  }
}
