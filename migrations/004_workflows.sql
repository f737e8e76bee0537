-- Migration 4: workflows.
--
-- A workflow is an execution with a wakeup row: workers resume it, and no client has to retry it.
--
--   signals   one row for each signal that was sent to an execution; its value until a journal entry has
--             consumed it
--   queues    one row for each queue: its limits, and how many of its executions are in and wait
--   lanes     the same for each key of a queue that limits the executions of each key
--   state     the keyed state of objects

alter table pawl.executions
  drop constraint executions_status_check,
  -- waiting    resumes when its wakeup is due: it has not begun yet, sleeps, or waits for a signal
  add constraint executions_status_check
    check (status in ('running', 'waiting', 'released', 'unknown', 'parked', 'done')),
  -- The version of the workflow's code that it was started for.
  add column version    text,
  -- The id of the execution that started it.
  add column parent     uuid,
  -- The parent's created_at, which identifies its incarnation: the outcome is kept until that has ended, or has
  -- journaled the outcome. Null if it is kept for its retention only.
  add column parent_life timestamptz,
  -- The queue whose limits it runs under, and the key within the queue, if any.
  add column queue      text,
  add column lane       text,
  -- Counts the events that have arrived: signals, outcomes it waits for, its cancellation. Suspending it is a
  -- compare-and-set on this count, so that an event that arrives meanwhile is not missed.
  add column inbox      integer not null default 0,
  -- The ids of executions that wait until this one ends.
  add column waiters    uuid[],
  -- Whether it is being cancelled: no new step begins, and its compensations run.
  add column cancelling boolean not null default false,
  -- When it times out.
  add column deadline   timestamptz,
  -- Why the last attempt ended without an outcome: an encoded error, for people.
  add column last_error bytea;

create index executions_parent on pawl.executions (parent) where parent is not null;
-- For the executions whose cancellation their process must learn of.
create index executions_cancelling on pawl.executions (id) where cancelling and status = 'running';

alter table pawl.wakeups rename column queue to handler;
alter table pawl.wakeups
  -- False while it may not begin or go on: it waits for its queue, has lent its place, or is parked.
  add column admitted boolean not null default true,
  -- From 0 to 9; of several that are due, the highest runs first.
  add column priority smallint not null default 0,
  -- Whether it has run. What goes on (sleepers, signals, retries) and what begins each have a share of the workers.
  add column begun    boolean not null default false,
  -- How many attempts have ended with the death of their process since one recorded something.
  add column deaths   integer not null default 0,
  -- The number of the attempt that ended with the last such death.
  add column last_death integer not null default 0,
  add column queue    text,
  add column lane     text,
  -- Where it stands in its queue; null outside of one. It changes with the counts in queues and lanes.
  -- arriving   a worker lets it in when it is due, and counts it then
  -- delayed    the same, but it counts in the queue's backlog
  -- key        waits for its lane
  -- queue      is in its lane, and waits for the queue
  -- in         is in its lane and in the queue
  -- lent       the same, but an execution that it waits for has its place
  add column place    text check (place in ('arriving', 'delayed', 'key', 'queue', 'in', 'lent')),
  -- The execution whose place in the queue it has, and whether it has its place in the lane as well.
  add column lender   uuid,
  add column lends_key boolean not null default false,
  -- While it is suspended: the executions whose results it waits for, and whether it waits for a signal or a time too.
  add column awaits   uuid[],
  add column listens  boolean not null default false,
  -- Set where it waits in a circle: the wait that ends with an error, and the circle.
  add column deadlock jsonb,
  -- When it arrived, or becomes due after its delay: the order within a lane.
  add column enqueued_at timestamptz not null default pawl.now();

comment on column pawl.wakeups.handler is 'the code that can go on with it: requests, or a workflow''s name and version';

drop index pawl.wakeups_due_at;
create index wakeups_due_at on pawl.wakeups (handler, priority, begun, due_at) where admitted;
create index wakeups_arriving on pawl.wakeups (queue, handler, due_at) where place in ('arriving', 'delayed');
create index wakeups_in_lane on pawl.wakeups (queue, lane, enqueued_at, execution_id) where place = 'key';
create index wakeups_in_queue on pawl.wakeups (queue, handler, priority, due_at) where place = 'queue';
create index wakeups_in on pawl.wakeups (queue, lane) where place in ('in', 'lent');
create index wakeups_of_lane on pawl.wakeups (queue, lane) where place = 'queue' and lane is not null;
create index wakeups_lender on pawl.wakeups (lender) where lender is not null;
create index wakeups_awaits on pawl.wakeups (execution_id) where admitted and awaits is not null;

create table pawl.signals (
  execution_id uuid not null,
  name         text not null,
  -- An id that the sender gives; a signal sent twice is stored once.
  sender       text not null,
  value        bytea,
  sent_at      timestamptz not null,
  -- When a journal entry consumed it. The row is kept, without its value, so that a repeated send has no effect.
  taken_at     timestamptz,
  primary key (execution_id, name, sender)
);

-- For reading the pending signals of an execution that has received many.
create index signals_unread on pawl.signals (execution_id, name, sent_at) where taken_at is null;

create table pawl.queues (
  name          text primary key,
  -- How many may be in; how many of one key; how many may begin within a period. Null: no limit.
  concurrency   integer,
  per_key       integer,
  rate_limit    integer,
  rate_ms       bigint,
  -- How many may wait. Null: no limit.
  max_depth     integer,
  -- Whether it has limits of its own, beside those of each key. If not, the counts are not kept.
  is_limited    boolean not null
    generated always as (concurrency is not null or rate_limit is not null or max_depth is not null) stored,
  -- How many have the place in, without those that have it from another; and how many have the place queue.
  held          integer not null default 0,
  waiting       integer not null default 0,
  -- How many have not begun; of those that arrive, only the delayed ones.
  backlog       integer not null default 0,
  -- When executions began, within the last period: an array of [ms since 1970, how many].
  rate          jsonb not null default '[]',
  -- When a process last compared the counts with the executions.
  checked_at    timestamptz not null default '-infinity'
) with (fillfactor = 50);

create table pawl.lanes (
  queue      text not null,
  key        text not null,
  -- How many may be in; how many are in, or have been in and wait for the queue; how many wait.
  slots      integer not null,
  held       integer not null,
  waiting    integer not null,
  changed_at timestamptz not null,
  primary key (queue, key)
) with (fillfactor = 50);

-- The handlers that a process runs, by the name of their queue: {"queue": ["handler"]}.
alter table pawl.processes add column queues jsonb not null default '{}';

-- How many executions began after a time.
create function pawl.rate_used(rate jsonb, since timestamptz) returns integer
  language sql immutable
as $$
  select coalesce(sum((entry ->> 1)::integer), 0)::integer from jsonb_array_elements(rate) as entry
  where (entry ->> 0)::float8 > extract(epoch from since) * 1000
$$;

-- The times at which executions began, with those that begin now, and without those that a period has passed since.
-- With a high limit, times are rounded up, so that there are at most 201 of them.
create function pawl.rate_add(rate jsonb, moment timestamptz, period_ms bigint, max integer, added integer) returns jsonb
  language sql immutable
as $$
  select coalesce(jsonb_agg(jsonb_build_array(at, n) order by at), '[]')
  from (
    select at, sum(n) as n
    from (
      select (entry ->> 0)::float8 as at, (entry ->> 1)::integer as n from jsonb_array_elements(rate) as entry
      where (entry ->> 0)::float8 > extract(epoch from moment) * 1000 - period_ms
      union all
      select case when max <= 200 then extract(epoch from moment) * 1000
        else ceil(extract(epoch from moment) * 1000 / (period_ms / 200.0)) * (period_ms / 200.0) end, added
      where added > 0
    ) as entries
    group by at
  ) as times
$$;

create table pawl.state (
  object     text not null,
  key        text not null,
  name       text not null,
  value      bytea not null,
  updated_at timestamptz not null,
  primary key (object, key, name)
);

-- By default a table is vacuumed when a fifth of it is dead: of ten million executions, two million. Rows that change
-- often are vacuumed early, since dead ones are in the way of whoever looks for work.
alter table pawl.executions set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
alter table pawl.steps set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
alter table pawl.wakeups set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
alter table pawl.signals set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
alter table pawl.queues set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
alter table pawl.lanes set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

drop view pawl.execution_log;

-- The SQL interface: query this view, not the tables, which may change between versions.
create view pawl.execution_log as
select
  e.id,
  e.scope,
  e.key,
  e.kind,
  e.name,
  e.version,
  case
    when e.status = 'running' and not coalesce(p.expires_at > pawl.now(), false) then 'interrupted'
    when e.status = 'done' and e.kind <> 'request' and e.response_status = 499 then 'cancelled'
    when e.status = 'done' and e.kind <> 'request' and e.response_status <> 200 then 'failed'
    else e.status
  end as status,
  e.cancelling and e.status <> 'done' as cancelling,
  e.attempt,
  e.owner,
  coalesce(p.expires_at > pawl.now(), false) as owner_alive,
  p.host as owner_host,
  p.pid as owner_pid,
  e.parent,
  e.queue,
  e.lane as queue_key,
  -- What it waits for: executions that have not ended, of which one must before it goes on.
  case w.place
    when 'key' then array(
      select h.execution_id from pawl.wakeups h
      where h.queue = w.queue and h.lane = w.lane and h.place in ('in', 'lent')
      union all
      select h.execution_id from pawl.wakeups h
      where h.queue = w.queue and h.lane = w.lane and h.place = 'queue' and h.lane is not null)
    when 'queue' then array(select h.execution_id from pawl.wakeups h
      where h.queue = w.queue and h.place in ('in', 'lent'))
    when 'lent' then array(select h.execution_id from pawl.wakeups h where h.lender = e.id)
    else case when e.status = 'waiting' then w.awaits end
  end as blocked_by,
  w.priority,
  -- Infinity means that it waits for an event, without a due time.
  nullif(w.due_at, 'infinity') as due_at,
  case when e.kind <> 'request' then pawl.readable_json(e.input) end as input,
  case when e.kind <> 'request' and e.response_status = 200 then pawl.readable_json(e.response_body) end as result,
  pawl.readable_json(case when e.kind <> 'request' and e.response_status >= 400 then e.response_body
    else e.last_error end) as error,
  case when e.kind = 'request' then e.response_status end as response_status,
  case when e.kind = 'request' then pawl.readable_json(e.response_headers) end as response_headers,
  -- Headers and body are both encrypted, or neither is.
  case when e.kind <> 'request' then null
    when substr(e.response_headers, 1, 1) = '\x02' then '<' || length(e.response_body) || ' bytes, encrypted>'
    else pawl.readable(e.response_body) end as response_body,
  e.status = 'done' and e.kind = 'request' and e.response_body is not null as body_kept,
  e.created_at,
  e.completed_at,
  coalesce(e.completed_at, pawl.now()) - e.created_at as duration,
  e.expires_at
from pawl.executions e
left join pawl.processes p on p.id = e.owner
left join pawl.wakeups w on w.execution_id = e.id;

comment on view pawl.execution_log is 'Every execution Pawl knows, for people. One row for each request, workflow and call of an object.';
comment on column pawl.execution_log.status is 'running, interrupted (its owner died), waiting (begins or goes on later), released (free to resume), unknown (nobody can know what it did), parked (workers gave up), done, failed (a workflow''s final error) or cancelled';
comment on column pawl.execution_log.owner_alive is 'whether the process that runs it has a current heartbeat';
comment on column pawl.execution_log.blocked_by is 'the executions that it waits for: whose results it wants, or which are before it in its queue';
comment on column pawl.execution_log.due_at is 'when workers look at it next; null if they wait for something to arrive';
comment on column pawl.execution_log.error is 'of a workflow: the error it ended with, or that its last attempt ended with';
comment on column pawl.execution_log.response_headers is 'an array of [name, value or array of values]';
comment on column pawl.execution_log.response_body is 'the stored body, if it is UTF-8 text; null if none is stored';
comment on column pawl.execution_log.duration is 'from the claim to the outcome, or until now';
comment on column pawl.execution_log.expires_at is 'when retention may delete it and the key is new again; infinity for unfinished workflows. Moved on by an hour at a time while an unfinished execution that started it or waits for it has not journaled its outcome';

-- The keyed state of objects: the SQL interface to it.
create view pawl.state_log as
select object, key, name, pawl.readable_json(value) as value, updated_at from pawl.state;

comment on view pawl.state_log is 'What objects keep, for people: one row for each (object, key, name).';

-- The SQL interface to queues: their counts.
create view pawl.queue_log as
select
  q.name as queue,
  w.waiting as backlog,
  w.delayed,
  w.running,
  w.oldest,
  q.concurrency,
  q.per_key as concurrency_per_key,
  q.rate_limit,
  q.rate_ms * interval '1 millisecond' as rate_period,
  q.max_depth
from pawl.queues q
cross join lateral (
  select count(*) filter (where state = 'waiting') as waiting, count(*) filter (where state = 'delayed') as delayed,
    count(*) filter (where state = 'running') as running, min(enqueued_at) filter (where state = 'waiting') as oldest
  from (
    -- Each part is read by an index of its own.
    select 'waiting' as state, enqueued_at from pawl.wakeups where queue = q.name and place = 'key'
    union all select 'waiting', enqueued_at from pawl.wakeups where queue = q.name and place = 'queue'
    union all select case when due_at > pawl.now() then 'delayed' else 'waiting' end, enqueued_at
      from pawl.wakeups where queue = q.name and place in ('arriving', 'delayed')
    union all select case when begun then 'running' else 'waiting' end, enqueued_at
      from pawl.wakeups where queue = q.name and place in ('in', 'lent')
  ) as w
) as w;

comment on view pawl.queue_log is 'Each queue that something waits in or has run under.';
comment on column pawl.queue_log.backlog is 'how many have not begun';
comment on column pawl.queue_log.delayed is 'how many begin later';
comment on column pawl.queue_log.running is 'how many are under way, sleeping ones too';
comment on column pawl.queue_log.oldest is 'since when the first of those that wait has waited';
comment on column pawl.step_log.kind is 'step, transaction, sleep, signal, child (a start), result (of another execution, whose id ends its name), state, patch, compensation, giving-up (the answer that compensations run for), or divergence (the code of that attempt did not fit)';
