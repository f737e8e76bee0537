-- Migration 3: executions that workers resume.
--
--   wakeups   one row for each execution that workers must check, and when. An execution that only its
--             client's retries resume has none. Workers lock due rows with FOR UPDATE SKIP LOCKED.

create table pawl.wakeups (
  execution_id uuid primary key,
  -- The code that can resume it; 'requests': the app's handler, with the stored request.
  queue        text not null,
  -- Infinity if workers have given up.
  due_at       timestamptz not null,
  -- How many attempts the execution may have before workers give up.
  max_attempts integer not null
);

create index wakeups_due_at on pawl.wakeups (due_at);
