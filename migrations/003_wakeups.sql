-- Migration 3: executions that go on by themselves.
--
--   wakeups   one row for each execution that workers must look at, and when. An execution that only its
--             client's retries resume has none. A worker takes due rows with FOR UPDATE SKIP LOCKED.

create table pawl.wakeups (
  execution_id uuid primary key,
  -- What kind of worker can go on with it; requests: the app, with the stored request.
  queue        text not null,
  -- Infinity: workers have given up.
  due_at       timestamptz not null,
  -- How many attempts the execution may have before workers give up.
  max_attempts integer not null
);

create index wakeups_due_at on pawl.wakeups (due_at);
